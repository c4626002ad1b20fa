#!/usr/bin/env python3
"""What the programs are made of: our own code, Swift packages, what those carry with them, Swift's runtime, C libraries.
scripts/package calls it for the copyright file and the bill of materials (SPDX 2.3) of a package."""

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Linked into the node only.
NODE_ONLY = {"toml++", "miniupnpc"}


@dataclasses.dataclass
class Component:
    name: str
    version: str
    licence: str  # SPDX expression
    origin: str
    notice: str  # what its licence wants to be told


def swift_packages(scratch):
    """The packages of the build, with the versions it was made with."""
    state = json.loads((scratch / "workspace-state.json").read_text())
    found = []
    for dependency in sorted(state["object"]["dependencies"], key=lambda each: each["subpath"].lower()):
        folder = scratch / "checkouts" / dependency["subpath"]
        licence = read_first(folder, "LICENSE.txt", "LICENSE")
        found.append(Component(
            dependency["subpath"], dependency["state"]["checkoutState"].get("version", "unknown"),
            "Apache-2.0" if "Apache License" in licence else "MIT",
            dependency["packageRef"]["location"].removesuffix(".git"),
            read_first(folder, "NOTICE.txt") if "Apache License" in licence else licence))
    return found


def carried(scratch):
    """Sources of others inside those packages."""
    checkouts = scratch / "checkouts"
    found = []
    for package, target in (("swift-crypto", "CCryptoBoringSSL"), ("swift-nio-ssl", "CNIOBoringSSL")):
        path = checkouts / package / "Sources" / target / "hash.txt"
        match = re.search(r"[0-9a-f]{40}", path.read_text()) if path.exists() else None
        found.append(Component(f"BoringSSL ({target})", match[0] if match else "unknown", "Apache-2.0",
                               "https://boringssl.googlesource.com/boringssl", "Copyright The BoringSSL Authors"))
    found.append(Component("llhttp", "in swift-nio", "MIT", "https://github.com/nodejs/llhttp",
                           read_first(checkouts / "swift-nio/Sources/CNIOLLHTTP", "LICENSE")))
    return found


def system():
    """Swift's runtime, and the C and C++ libraries of the system that are inside."""
    output = subprocess.run(["swift", "--version"], capture_output=True, text=True).stdout
    match = re.search(r"Swift version ([\d.]+)", output)
    upnp = "/usr/share/doc/libminiupnpc-dev/copyright"
    return [
        Component("Swift runtime (standard library, Dispatch, FoundationEssentials)", match[1] if match else "unknown",
                  "Apache-2.0 WITH Swift-exception", "https://github.com/swiftlang/swift",
                  "Copyright Apple Inc. and the Swift project authors"),
        Component("miniupnpc", debian_version("libminiupnpc-dev"), "BSD-3-Clause", "https://miniupnp.tuxfamily.org/",
                  pathlib.Path(upnp).read_text() if os.path.exists(upnp) else "Copyright (c) Thomas Bernard"),
        Component("toml++", debian_version("libtomlplusplus-dev"), "MIT", "https://github.com/marzer/tomlplusplus",
                  "Copyright (c) Mark Gillard\n" + MIT),
    ]


def debian_version(package):
    run = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
    return run.stdout if run.returncode == 0 else "unknown"


def read_first(folder, *names):
    for name in names:
        if (folder / name).exists():
            return (folder / name).read_text(errors="replace")
    return ""


def components(scratch, package):
    found = swift_packages(scratch) + carried(scratch) + system()
    return [each for each in found if package == "pilot-tun" or each.name not in NODE_ONLY]


def copyright_file(found):
    parts = [(ROOT / "packaging/copyright").read_text()]
    for each in found:
        notice = "\n".join(" " + (line.strip() or ".") for line in each.notice.strip().splitlines())
        parts.append(f"\nFiles: {each.name.replace(' ', '-')}\nCopyright: see the notice\nLicense: {each.licence.split()[0]}\n"
                     f"Comment: {each.version}, {each.origin}\n" + (notice + "\n" if notice else ""))
    names = sorted({each.licence.split()[0] for each in found} | {"Apache-2.0"})
    for name in names:
        parts.append(f"\nLicense: {name}\n{LICENCES[name]}\n")
    return "".join(parts)


def spdx(found, options):
    """SPDX 2.3: the package with its hash, what is inside, what it needs."""
    created = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    digest = hashlib.sha256(options.file.read_bytes()).hexdigest()
    packages = [entry(options.package, options.version, "Apache-2.0", "NOASSERTION")]
    packages[0]["packageFileName"] = options.file.name
    packages[0]["checksums"] = [{"algorithm": "SHA256", "checksumValue": digest}]
    relations = [relation("SPDXRef-DOCUMENT", "DESCRIBES", packages[0]["SPDXID"])]
    for each in found:
        packages.append(entry(each.name, each.version, each.licence, each.origin))
        relations.append(relation(packages[0]["SPDXID"], "STATIC_LINK", packages[-1]["SPDXID"]))
    for name in re.findall(r"(?:^|, )([a-z0-9][a-z0-9.+-]*)", options.depends):
        packages.append(entry(name, debian_version(name), "NOASSERTION", "NOASSERTION"))
        relations.append(relation(packages[0]["SPDXID"], "DYNAMIC_LINK", packages[-1]["SPDXID"]))
    return json.dumps({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{options.package}-{options.version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/{options.package}-{options.version}-{digest[:32]}",
        "creationInfo": {"created": created.strftime("%Y-%m-%dT%H:%M:%SZ"), "creators": ["Tool: pilot-tun-scripts-package"]},
        "packages": packages, "relationships": relations}, indent=1) + "\n"


def entry(name, version, licence, origin):
    return {"SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-"), "name": name, "versionInfo": version,
            "downloadLocation": origin if origin.startswith("http") else "NOASSERTION", "filesAnalyzed": False,
            "licenseConcluded": licence, "licenseDeclared": licence, "copyrightText": "NOASSERTION"}


def relation(one, kind, other):
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions: The above copyright notice and
this permission notice shall be included in all copies or substantial portions of the Software. THE SOFTWARE IS PROVIDED
"AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS
BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
LICENCES = {
    "Apache-2.0": " On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.",
    "MIT": " The text stands in each notice above.",
    "BSD-3-Clause": " The text stands in the notice above.",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["copyright", "spdx"])
    parser.add_argument("--package", required=True)
    parser.add_argument("--scratch", type=pathlib.Path, required=True)
    parser.add_argument("--version")
    parser.add_argument("--depends", default="")
    parser.add_argument("--file", type=pathlib.Path)
    options = parser.parse_args()
    found = components(options.scratch, options.package)
    sys.stdout.write(copyright_file(found) if options.what == "copyright" else spdx(found, options))


if __name__ == "__main__":
    main()
