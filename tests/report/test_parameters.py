"""Parameters of a notebook: which it takes, and which values they get."""

import nbformat
import papermill
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_notebook

from canarykit.cli import main
from canarykit.errors import PlanError, ReportError
from canarykit.report.execute import checked, known_parameters

ADDRESS = "kube:prod/ai?router=istio&gateway=mesh/web&url=https://ai.example.com"


def tagged(source, *tags):
    """A cell with tags."""
    return new_code_cell(source, metadata={"tags": list(tags or ("parameters",))})


@pytest.fixture
def notebook(tmp_path):
    """Write a notebook whose cell tagged parameters is this text, or of these cells."""

    def write(*cells, **metadata):
        path = tmp_path / "nb.ipynb"
        made = [tagged(cell) if isinstance(cell, str) else cell for cell in cells]
        nbformat.write(new_notebook(cells=made, metadata=metadata), path)
        return path

    return write


def test_parameters_that_papermill_leaves_out(notebook):
    """
    The field's case: a value with equal signs, and a union of types; a notebook with them is run.
    """
    path = notebook(
        f'where: str = "{ADDRESS}"  # Where it runs\nrate: float = 60.0  # Requests per second\n'
        "journal: str | None = None  # File for the record\n"
    )
    assert list(known_parameters(path).values()) == [
        {"name": "where", "inferred_type_name": "str", "default": f'"{ADDRESS}"', "help": "Where it runs"},
        {"name": "rate", "inferred_type_name": "float", "default": "60.0", "help": "Requests per second"},
        {"name": "journal", "inferred_type_name": "str | None", "default": "None", "help": "File for the record"},
    ]
    assert checked(path, {"where": f"{ADDRESS}&x=1"}) == {"where": f"{ADDRESS}&x=1"}


@pytest.mark.real("jupyter")
def test_a_notebook_with_such_parameters_is_run(notebook, tmp_path):
    """
    It gets the values, and the journal that it takes; a magic and a shell command stand in the same cell.
    """
    path = notebook(
        f'%config InlineBackend.close_figures = True\n!true\nwhere: str = "{ADDRESS}"  # Where\n'
        "journal: str | None = None  # File\ntag = '1.9'\n",
        new_code_cell("assert where == 'a=b|c.d' and journal.endswith('journal.sqlite') and tag == '1.10'\nprint('as given')"),
    )
    words = ["report", str(path), "--out", str(tmp_path / "out"), "-p", "where", "a=b|c.d", "-p", "tag", "1.10"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 20, done.stdout + done.stderr
    assert "as given" in done.stdout


@pytest.mark.parametrize(
    ("cell", "name", "annotation", "default", "said"),
    [
        ('v: ck.Version = ck.Version("a=b")  # V', "v", "ck.Version", 'ck.Version("a=b")', "V"),
        ('d: dict[str, "int"] = {\n  "a": 1,  # one\n  "b": 2,\n}  # D', "d", "dict[str, 'int']",
         '{\n  "a": 1,  # one\n  "b": 2,\n}', "D"),
        ('o: Optional["Plan"] = None', "o", "Optional['Plan']", "None", ""),
        ('q: "int | None" = 3', "q", "int | None", "3", ""),
        ("t = '#no'  # type: str Tag", "t", "str", "'#no'", "Tag"),
        ("first = second = 3", "second", "None", "3", ""),
        ("s = '''\n!x = y\n'''", "s", "None", "'''\n!x = y\n'''", ""),
        ("%%time\n%load_ext autoreload\n!pip list \\\n  | head\nx = 1  # X", "x", "None", "1", "X"),
        ("files = !ls\nprint?\nx = 1", "x", "None", "1", ""),
        ("import os\nx = os.environ.get('A', 'b=c')", "x", "None", "os.environ.get('A', 'b=c')", ""),
    ],
)  # fmt: skip
def test_a_parameter_is_found_as_python_reads_it(notebook, cell, name, annotation, default, said):
    """
    Dotted types, quotes and line breaks in brackets, type comments, chains; magics, shell commands and help are left out.
    """
    found = known_parameters(notebook(cell))[name]
    assert found == {"name": name, "inferred_type_name": annotation, "default": default, "help": said}


def test_of_several_cells_the_first_is_read(notebook):
    """
    As papermill does, which writes its values behind the first one; other tags and other cells are none.
    """
    path = notebook(new_code_cell("a = 1"), tagged("b = 1", "x", "parameters"), tagged("c = 1"), kernelspec={"name": "python3",
                    "display_name": "p", "language": "python"})  # fmt: skip
    assert list(known_parameters(path)) == list(papermill.inspect_notebook(str(path))) == ["b"]
    assert known_parameters(notebook(new_code_cell("a = 1"))) == {}


def test_a_cell_that_is_no_python_is_refused(notebook):
    """
    The error says which cell, which line, and what to do.
    """
    with pytest.raises(
        ReportError, match=r"cell tagged parameters of .*nb\.ipynb cannot be read as Python \(line 2: .*mend it"
    ):
        known_parameters(notebook("a = 1\nb = = 2"))


def test_other_languages_are_left_to_papermill(notebook):
    """
    A cell of R is no Python, and is read as papermill reads it.
    """
    kernel = {"name": "ir", "display_name": "R", "language": "R"}
    assert known_parameters(notebook("x <- 5", kernelspec=kernel)) == {}


DECLARED = [
    # The annotation decides.
    ("x: str = ''", "1.10", "1.10"), ("x: str = ''", '"1.10"', '"1.10"'), ("x: int = 1", "5", 5), ("x: float = 1", "5", 5.0),
    ("x: float = 1", "1e5", 1e5), ("x: bool = True", "False", False), ("x: int | str = 1", "5", 5),
    ("x: int | str = 1", "0123", "0123"), ("x: str | None = None", "null", None), ("x: str | None = None", "", None),
    ("x: Optional[str] = None", "none of these", "none of these"), ("x: Optional['int'] = None", "5", 5),
    ("x: Union[int, float] = 1", "1.5", 1.5), ("x: list[str] = []", "[1.10, no]", ["1.10", "no"]),
    ("x: list[int] | None = None", "[1, 2]", [1, 2]), ("x: dict[str, int] = {}", '{"a": 1}', {"a": 1}),
    ("x: dict = {}", "{a: [1, null, '2', true]}", {"a": [1, None, "2", True]}), ("x: Literal['a', 'b'] = 'a'", "b", "b"),
    ("x: Annotated[int, 'seconds'] = 1", "5", 5), ("x: typing.Sequence[float] = ()", "[1, 2.5]", [1.0, 2.5]),
    # Without one, the default does.
    ("x = '1.9'", "1.10", "1.10"), ("x = '2026-11-01'", "2026-11-02", "2026-11-02"), ("x = 'a'", "1e5", "1e5"),
    ("x = 'a'", "no", "no"), ("x = 'a'", "0123", "0123"), ("x = 'a'", "null", "null"), ("x = 60", "5", 5),
    ("x = 60", "2.5", 2.5),
    ("x = False", "true", True), ("x = ['1.9']", "[1.10, 2026-11-02]", ["1.10", "2026-11-02"]),
    ("x = [5, 25]", "[1, 2.5]", [1, 2.5]),
    ("x: list = ['1.9']", "[1.10]", ["1.10"]), ("x = {'tag': '1.9'}", "{tag: 1.10}", {"tag": "1.10"}),
    # Nothing does: what everyone reads as text.
    ("x = None", "v1.9", "v1.9"), ("x = None", "a: b", "a: b"), ("x = None", '"1.10"', "1.10"),
    ("x = None", "{a: no}", {"a": "no"}),
    ("x: ck.Version = ck.Version('1')", "v2", "v2"), ("x = os.environ['A']", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "text", "value"), DECLARED)
def test_a_value_is_of_the_declared_type(notebook, cell, text, value):
    """
    By the annotation, else by the default, else by what everyone reads; YAML's dates, octals and "no" are never made of text.
    """
    found = checked(notebook(cell), {"x": text})["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("cell", "text", "said"),
    [
        ("x: int = 1", "1.0", "is int, and '1.0' is not: write a whole number"),
        ("x: int = 1", "1:30", "is int"),
        ("x: int = 1", "true", "is int"),
        ("x: float = 1", "fast", "is float, and 'fast' is not"),
        ("x: float = 1", "nan", "is float"),
        ("x: bool = True", "yes", "is bool, and 'yes' is not: write true or false"),
        ("x: int | None = 1", "fast", r"is int \| None, and 'fast' is not"),
        ("x: list = [5, 25]", "5,25", r"is list, and '5,25' is not: write \[5, 25, 50\]"),
        ("x: list[int] = []", "[1, a]", r"is list\[int\]"),
        ("x: list[int] = []", "[1", r"is list\[int\]"),
        ("x: dict[str, int] = {}", "[1]", r"write \{a: 1, b: 2\}"),
        ("x: Literal['a', 'b'] = 'a'", "c", "choose one of a, b"),
        ("x = 60", "fast", r"is int \| float"),
        ("x = False", "0", "is bool"),
        *(("x = None", text, "has no type that is known.*annotate the parameter.*for text") for text in
          ("1.10", "5", "1e5", "2026-11-02", "no", "null", "None", "0123", "1:30", "0x1f", ".5", "~")),
        ("x: ck.Version = ck.Version('1')", "1.10", "has no type that is known"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(notebook, cell, text, said):
    """
    The error names parameter, type and value, and says what to write.
    """
    with pytest.raises(PlanError, match=f"parameter 'x' of nb.ipynb .*{said}"):
        checked(notebook(cell), {"x": text})
