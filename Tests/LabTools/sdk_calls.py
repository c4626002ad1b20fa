"""Calls of the official SDK against a daemon's local socket, one program per situation:

  sdk_calls.py SOCKET VERB [ARGUMENT...]

Prints `VERB: RESULT` as JSON; a call that fails prints `VERB: error TEXT` and ends with status 1.
"""

import json
import sys

from pilotprotocol import Driver


def datagrams(driver, count):
    """Waits for datagrams, after a line that says so."""
    print("ready", flush=True)
    return [
        {key: str(value) for key, value in driver.recv_from().items()} for _ in range(int(count))
    ]


def subscribe(driver, target, topic, seconds):
    print("ready", flush=True)
    for name, data in driver.subscribe_event(target, topic, timeout=int(seconds)):
        return [name, data.decode()]
    return None


verbs = {
    "info": lambda driver: driver.info(),
    "health": lambda driver: driver.health(),
    "resolve": lambda driver, name: driver.resolve_hostname(name),
    "hostname": lambda driver, name: driver.set_hostname(name),
    "visibility": lambda driver, public: driver.set_visibility(public == "public"),
    "tags": lambda driver, *tags: driver.set_tags(list(tags)),
    "webhook": lambda driver, url: driver.set_webhook(url),
    "handshake": lambda driver, node, reason: driver.handshake(int(node), reason),
    "approve": lambda driver, node: driver.approve_handshake(int(node)),
    "reject": lambda driver, node: driver.reject_handshake(int(node), "no"),
    "pending": lambda driver: driver.pending_handshakes(),
    "trusted": lambda driver: driver.trusted_peers(),
    "wait": lambda driver, node: driver.wait_for_trust(int(node), 10_000),
    "revoke": lambda driver, node: driver.revoke_trust(int(node)),
    "networks": lambda driver: driver.network_list(),
    "join": lambda driver, network, token: driver.network_join(int(network), token),
    "leave": lambda driver, network: driver.network_leave(int(network)),
    "members": lambda driver, network: driver.network_members(int(network)),
    "invite": lambda driver, network, node: driver.network_invite(int(network), int(node)),
    "invites": lambda driver: driver.network_poll_invites(),
    "respond": lambda driver, network, yes: driver.network_respond_invite(int(network), yes == "yes"),
    "managed": lambda driver, network: driver.managed_status(int(network)),
    "cycle": lambda driver, network: driver.managed_force_cycle(int(network)),
    "reconcile": lambda driver, network: driver.managed_reconcile(int(network)),
    "policy": lambda driver, network: driver.policy_get(int(network)),
    "member-tags": lambda driver, network, node: driver.member_tags_get(int(network), int(node)),
    "set-member-tags": lambda driver, network, node, tag: driver.member_tags_set(int(network), int(node), [tag]),
    "send-to": lambda driver, address, text: driver.send_to(address, text.encode()),
    "recv-from": datagrams,
    "broadcast": lambda driver, network, port, text, token: driver.broadcast(
        int(network), int(port), text.encode(), token
    ),
    "send-message": lambda driver, target, text: driver.send_message(target, text.encode(), "text"),
    "send-json": lambda driver, target, text: driver.send_message(target, text.encode(), "json"),
    "send-file": lambda driver, target, path: driver.send_file(target, path),
    "publish": lambda driver, target, topic, text: driver.publish_event(target, topic, text.encode()),
    "subscribe": subscribe,
    "disconnect": lambda driver, conn: driver.disconnect(int(conn)),
    "rotate-key": lambda driver: driver.rotate_key(),
    "deregister": lambda driver: driver.deregister(),
}


def main():
    path, verb, arguments = sys.argv[1], sys.argv[2], sys.argv[3:]
    driver = Driver(path)
    try:
        result = verbs[verb](driver, *arguments)
    except Exception as error:
        print(f"{verb}: error {error}", flush=True)
        sys.exit(1)
    print(f"{verb}: {json.dumps(result, default=str)}", flush=True)


main()
