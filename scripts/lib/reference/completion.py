"""Shell completions. swift-argument-parser writes those of its programs; those of pilotctl, which reads its line as the
official client does, are written here from the same description."""

import subprocess

SHELLS = {"bash": "{}.bash", "zsh": "_{}", "fish": "{}.fish"}


def scripts(folder, tools):
    files = {}
    for program in tools:
        for shell, name in SHELLS.items():
            if program.title == "pilotctl":
                text = {"bash": bash, "zsh": zsh, "fish": fish}[shell](program)
            else:
                line = [folder / program.title, "--generate-completion-script", shell]
                text = subprocess.run(line, check=True, capture_output=True, text=True, timeout=60).stdout
                # These files are read by a shell, not run.
                text = text.removeprefix("#!/bin/bash\n")
            files[name.format(program.title)] = text.rstrip("\n") + "\n"
    return files


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def flags(command):
    return [each for each in command.arguments if each.kind != "positional"]


def bash(program):
    """Words of the line up to the cursor choose the verb; its flags and sub-verbs are offered, else files."""
    cases = []
    for command in [program, *groups(program), *program.leaves]:
        offered = [each.path[-1] for each in command.commands] + ["--" + each.name for each in flags(command) + flags(program)]
        path = " ".join(command.path[1:])
        cases.append(f"    {quoted(path)}) words={quoted(' '.join(dict.fromkeys(offered)))} ;;")
    names = " ".join(dict.fromkeys(each.path[1] for each in program.leaves))
    return f"""# Completion of pilotctl for bash.
_pilotctl() {{
  local word verb='' words='' groups={quoted(' '.join(each.path[1] for each in groups(program)))}
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case $word in -*) continue ;; esac
    if [[ -z $verb && " {names} " == *" $word "* ]]; then
      verb=$word
    elif [[ -n $verb && $verb != *' '* && " $groups " == *" $verb "* ]]; then
      verb="$verb $word"
    fi
  done
  case $verb in
{chr(10).join(cases)}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _pilotctl pilotctl
"""


def groups(program):
    return [each for each in program.commands if each.commands]


def zsh(program):
    """One function; `_arguments` does the rest."""
    def spec(each):
        text = each.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
        value = f":{each.value.replace(':', '-')}:" + ("_files" if each.value in ("file", "path", "folder") else " ")
        return quoted(f"--{each.name}[{text}]" + (value if each.kind == "option" else ""))

    def describe(commands):
        return " ".join(quoted(f"{each.path[-1]}:{each.abstract}") for each in commands)

    def body(command, position, indent):
        if not command.commands:
            operands = [quoted(f"{position + index}{':' if each.is_optional else ''}:{each.value}: ")
                        for index, each in enumerate(each for each in command.arguments if each.kind == "positional")]
            specs = [quoted(f"{index}: : ") for index in range(1, position)]
            return f"{indent}_arguments {' '.join(specs + operands + [spec(each) for each in flags(command) + flags(program)])}\n"
        text = f"{indent}if (( CURRENT == {position + 1} )); then\n{indent}  local -a verbs=({describe(command.commands)})\n"
        text += f"{indent}  _describe verb verbs\n{indent}  return\n{indent}fi\n{indent}case $words[{position + 1}] in\n"
        for each in command.commands:
            text += f"{indent}  {each.path[-1]})\n{body(each, position + 1, indent + '    ')}{indent}    ;;\n"
        return text + f"{indent}esac\n"

    return f"#compdef pilotctl\n# Completion of pilotctl for zsh.\n_pilotctl() {{\n{body(program, 1, '  ')}}}\n_pilotctl \"$@\"\n"


def fish(program):
    lines = ["# Completion of pilotctl for fish.", "complete -c pilotctl -f"]

    def option(each, condition):
        files = " -F" if each.value in ("file", "path", "folder") else ""
        value = f" -r{files}" if each.kind == "option" else ""
        lines.append(f"complete -c pilotctl {condition}-l {each.name}{value} -d {quoted(each.help)}")

    for each in flags(program):
        option(each, "")
    for command in program.commands:
        verb = command.path[-1]
        lines.append(f"complete -c pilotctl -n __fish_use_subcommand -a {verb} -d {quoted(command.abstract)}")
        names = " ".join(each.path[-1] for each in command.commands)
        for each in command.commands:
            alone = f"-n '__fish_seen_subcommand_from {verb}; and not __fish_seen_subcommand_from {names}'"
            lines.append(f"complete -c pilotctl {alone} -a {each.path[-1]} -d {quoted(each.abstract)}")
        for leaf in command.leaves:
            seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in leaf.path[1:])
            for each in flags(leaf):
                option(each, f"-n '{seen}' ")
    return "\n".join(lines) + "\n"
