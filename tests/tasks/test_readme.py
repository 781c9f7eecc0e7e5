"""Every command, link and line of Python in the README, and every command and link of the guides, works."""

import re
import shlex
import subprocess
import sys

import pytest
from toy import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8").replace("\\\n", " ") for page in PAGES}
README = TEXTS["README.md"]
# In blocks of shell, in code in a line or a table, and in indented blocks.
COMMANDS = r"(?:^ *|`)((?:python -m tasks |python examples/|python tests/|make )[^`\n]+)"
FOUND = {
    command.partition(" # ")[0].strip(): page
    for page, text in TEXTS.items()
    for command in re.findall(COMMANDS, text, flags=re.MULTILINE)
}
OWN = {
    "crossval": {"--seeds", "--folds"},
    "compare": {"--reductions", "--seeds", "--folds"},
    "judge": {"--curves", "--tolerance", "--rule"},
    "heads": {"--hidden", "--seeds", "--folds"},
    "embed": {"--parts", "--format", "--figures", "--clusters"},
    "probe": {"--budgets", "--probes", "--folds", "--seeds", "--pool.reduction", "--pool.levels"},
    "diagnose": {"--samples"},
    "floors": {"--folds", "--parts"},
    "search": {"--index", "--query", "-k"},
    "curate": {"--out", "--vectors", "--near", "--relevant"},
}  # flags with a value that a command has beside those of fit
NO_TRAINING = [
    "--trainer.fast_dev_run=true",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


def commands(start):
    found = [pytest.param(c, id=f"{page}: {c}") for c, page in FOUND.items() if c.startswith(start)]
    assert found
    return pytest.mark.parametrize("command", found)


def test_python_runs_and_gives_the_shapes_it_says():
    namespace = {}
    shapes = 0
    for line in re.search(r"```python\n(.*?)```", README, flags=re.DOTALL)[1].splitlines():
        code, _, comment = line.partition("#")
        if re.match(r"\s*\(\d", comment):
            shape = tuple(int(number) for number in re.search(r"\(([\d, ]+)\)", comment)[1].split(","))
            assert tuple(eval(code, namespace)) == shape, line
            shapes += 1
        else:
            exec(code, namespace)
    assert shapes == 3


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 140


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXTS[page]) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@commands("make")
def test_make_commands_exist(command):
    dry = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr
    assert "bin/" in dry.stdout


@commands(("python examples/", "python tests/"))
def test_scripts_exist(command):
    assert (ROOT / shlex.split(command)[1]).exists()


def of_fit(words):
    """What ``fit``, or a command with a parser of its own, has to take of a command's words."""
    if "--input" in words:
        words = words[: words.index("--input")]
    words = [
        word
        for word in words
        if word not in ("--resume", "--scratch", "--finetune", "--duplicates", "--decontaminate", "--apply")
    ]
    if words[0] in {*OWN, "explain"}:  # its own flags aside, it takes what fit takes
        own = OWN.get(words[0], set())
        words = ["fit", *(word for i, word in enumerate(words[1:], 1) if not {word, words[i - 1]} & own)]
    return [word for i, word in enumerate(words) if "--ckpt_path" not in (word, words[i - 1])]


def together():
    """Commands of one parser and the same configs, of which each flag is checked where it stands, one after another."""
    groups = {}
    for command in FOUND:
        if command.startswith("python -m tasks"):
            words = of_fit(shlex.split(command.replace("CONFIG", "configs/graph/motifs.yaml"))[3:])
            configs = tuple(words[i : i + 2] for i, word in enumerate(words) if word == "-c")
            classes = {"--model", "--data", "--model.encoder"} & {word.partition("=")[0] for word in words}
            alone = not configs or classes or words[0] != "fit" or "--print_config" in words
            groups.setdefault(command if alone else str(configs), []).append(command)
    return pytest.mark.parametrize("commands", groups.values(), ids=[names[0] for names in groups.values()])


@together()
def test_task_commands_parse(commands, monkeypatch, capsys):
    """Parsing builds every class's signature and checks every flag against it; data is not touched."""
    from tasks.__main__ import main

    every = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["tasks"])
    for command in commands:
        words = shlex.split(command.replace("CONFIG", "configs/graph/motifs.yaml"))[3:]
        if words[0] in ("explain", "predict", "embed") and "-c" not in words:  # what it misses comes after its flags
            with pytest.raises(SystemExit, match=r"error: .*does not exist"):
                main(words)
        elif words[0] == "results":  # it takes no config but the list of rows
            from tasks.commands.results import options

            options().parse_args(words[1:])
        elif words[0] == "search" and "-c" not in words:  # of a table, which is not there
            with pytest.raises(SystemExit, match=r"error: .*expected a table of vectors, got no such file"):
                main(words)
        elif "study.yaml" not in words:  # the reader's own file: test_volume_walk runs it
            configs = [words[i + 1] for i, word in enumerate(words) if word == "-c"]
            assert configs
            assert [config for config in configs if not (ROOT / config).is_file()] == []
            if "mymodule.Circuits" not in words:  # the reader's own class
                words = of_fit(words)
                every += (
                    words if not every else [w for i, w in enumerate(words[1:], 1) if "-c" not in (w, words[i - 1])]
                )
    if every:
        with pytest.raises(SystemExit) as stopped:
            main([*every, *([] if "--print_config" in every else ["--print_config"])])
        assert stopped.value.code in (0, None)
        assert "class_path" in capsys.readouterr().out


CONFIGS = sorted(ROOT.glob("configs/*/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_parses_and_says_its_command(path, monkeypatch, capsys):
    from tasks.__main__ import main

    name = f"configs/{path.parent.name}/{path.name}"
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    said = re.findall(
        rf"python -m tasks (fit|crossval|pretrain|match) ((?:-c \S+ )*-c {name})(?= |$)", header, re.MULTILINE
    )
    assert said
    command = "fit" if said[0][0] == "crossval" else said[0][0]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["tasks"])
    with pytest.raises(SystemExit) as stopped:
        main([command, *said[0][1].split(), "--print_config"])
    assert stopped.value.code in (0, None)
    assert f"tasks.{path.parent.name}." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["graph", "audio", "volume"])
def test_examples_run(name, tmp_path):
    """An example works from any folder and leaves its picture in the current one."""
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{name}.py")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert any(path.suffix in (".png", ".gz") for path in tmp_path.rglob("*"))
