"""Command line. Commands parse, call one function and print; heavy modules are imported only when needed."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from featray.cli.derive import derive
from featray.cli.doctor import doctor
from featray.cli.evaluate import evaluate
from featray.cli.inputs import input_arguments, read_inputs
from featray.cli.inputs import save_config as save_settings
from featray.cli.models import models
from featray.cli.persons import persons
from featray.cli.plan import plan
from featray.cli.report import diff, report
from featray.cli.status import status
from featray.cli.storage_flags import open_told, storage_flags
from featray.cli.streams import fill_streams, outlive_reader, outlive_terminal
from featray.cli.upkeep import compact, erase, publish, verify
from featray.cli.views import export, preview, safe_csv_flag, view
from featray.errors import FeatrayError, UsageError, on_one_line, printable
from featray.graph.stop import EXIT_INTERRUPTED, Terminated, terminable
from featray.redaction import redact_logs, redact_text
from featray.unloaded import hide_pandas
from featray.version import __version__

_FORMATS = click.Choice(["table", "csv", "json"])


class _Group(click.Group):
    """Prints featray's errors as one line and exits with their code; prints a traceback only with --debug."""

    def main(self, args: Any = None, *rest: Any, **named: Any) -> Any:
        if args is not None:  # called from Python, not run as a command
            return super().main(args, *rest, **named)
        fill_streams()
        outlive_terminal()
        hide_pandas()
        try:
            return super().main(args, *rest, **named)
        finally:
            # Raised in native threads that are about to end, a further Ctrl-C would abort with C++'s last words.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with terminable():  # or a change of an output would keep its lease, and rows of people in TMPDIR
                return super().invoke(ctx)
        except BrokenPipeError:
            raise  # click ends quietly, as `| head` expects
        except (FeatrayError, OSError) as error:
            if ctx.params.get("debug"):
                click.echo(redact_text(traceback.format_exc()), err=True, nl=False)
            text, status = (str(error), error.exit_code) if isinstance(error, FeatrayError) else (_of_machine(error), 1)
            if status == 1 or type(error.__context__).__name__ == "IOException":  # DuckDB's, of a user's query
                text += _limited()
            click.echo(f"featray: {text}", err=True)
            ctx.exit(status)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except KeyboardInterrupt as stop:
            click.echo("featray: stopped; run the same command again to resume", err=True)
            ctx.exit(stop.exit_code if isinstance(stop, Terminated) else EXIT_INTERRUPTED)
        except Exception as error:
            if (reason := _machine_fault(error)) is None:
                raise
            click.echo(f"featray: {reason}{_limited()}", err=True)
            ctx.exit(1)


_FIXES = {
    errno.EMFILE: "raise the limit of open files: `ulimit -n 1024`",
    errno.ENFILE: "raise the machine's limit of open files, fs.file-max",
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or raise the quota",
    errno.ENOMEM: "give it more memory, or fewer workers (cluster.decode_workers)",
    errno.EAGAIN: "raise the limit of processes: `ulimit -u`",
}


def _of_machine(error: OSError) -> str:
    """Return an operating-system error and its fix, in one line."""
    if error.filename is None and error.errno == errno.ENOENT and (gone := _folder_gone()):
        return gone
    place = error.filename or ("standard output" if _is_of_output(error) else None)
    what = ": ".join(str(part) for part in (place, error.strerror) if part) or str(error)
    fix = _FIXES.get(error.errno or 0, "`featray --debug ...` shows where, `featray doctor` checks this machine")
    return f"{printable(redact_text(what))}; {fix}"


def _is_of_output(error: OSError) -> bool:
    """Return whether this was raised by printing, such as into a file on a full disk; such an error names no place."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename == click.utils.__file__


def _machine_fault(error: Exception) -> str | None:
    """Return the one-line reason of an unexpected error if it is the machine's, else None."""
    if isinstance(error, MemoryError):
        return f"{os.strerror(errno.ENOMEM)}; {_FIXES[errno.ENOMEM]}"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):  # Python does not say why
        return f"no thread can be started; {_FIXES[errno.EAGAIN]}"
    if isinstance(error, (ImportError, SystemError)) and _limited():
        return f"Python's libraries could not be loaded ({error})"
    return _folder_gone()


def _folder_gone() -> str | None:
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the folder that this command was started in was deleted; `cd` to one that exists"
    return None


def _limited() -> str:
    """Return a hint about low `ulimit` values: lack of memory, files or room can cause any error in any library."""
    limits = []
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        limits.append(f"{most / 1e9:.1f} GB of address space, `ulimit -v`")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most < _FEW_FILES:
        limits.append(f"{most} open files, `ulimit -n`")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if most != resource.RLIM_INFINITY:
        limits.append(f"files of {most / 1e6:.1f} MB, `ulimit -f`")
    hints = f" (this shell allows {' and '.join(limits)}, which may be why)" if limits else ""
    os.umask(umask := os.umask(0o077))  # it can only be read by setting it
    if umask & 0o700:
        hints += f" (this shell's `umask` is {umask:03o}: new files are closed to their own owner, which may be why)"
    return hints


_FEW_FILES = 64


class _LogFormatter(logging.Formatter):
    """Escapes terminal control characters, which file names may contain, in logs."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return on_one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show tracebacks and debug logs.")
@click.version_option(__version__)
def main(debug: bool) -> None:
    """Facial behaviour at dataset scale: videos in, partitioned Parquet tables out.

    \b
    Try it:          featray demo
    Run it:          featray run my_clips/ --out OUT
    Query rows:      featray query OUT "SELECT * FROM faces LIMIT 5"
    See faces:       featray preview OUT --video face.mp4 --out sheet.png
    Overview:        featray report OUT --out report.html
    """
    redact_logs()
    handler = logging.StreamHandler()
    handler.setFormatter(_LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])


@main.command(short_help="Run the main job on a CONFIG, or on INPUTs into --out OUT.")
@input_arguments
@click.option(
    "--save-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also save the settings of this run as a CONFIG.",
)
@click.option("--executor", type=click.Choice(["auto", "ray", "local"]), help="Executor; sets cluster.executor.")
@click.option("--retry-failed", is_flag=True, help="Also retry videos that failed or were only partly readable.")
@click.option("--drop-deleted", is_flag=True, help="Remove rows of videos that are gone from a folder or glob.")
@click.option(
    "--part",
    metavar="I/N",
    help="Only land the results of part I of N, without Ray; a run without --part publishes them.",
)
@click.option("--quiet", is_flag=True, help="Print only the summary.")
@click.option("--log-line", is_flag=True, help="Print only the summary, as one line of JSON, for scheduled jobs.")
def run(
    inputs: tuple[str, ...],
    out: str | None,
    overrides: tuple[str, ...],
    save_config: Path | None,
    executor: str | None,
    retry_failed: bool,
    drop_deleted: bool,
    part: str | None,
    quiet: bool,
    log_line: bool,
) -> None:
    """Run the main job on a CONFIG (a .yaml file), or on INPUTs into --out OUT.

    An INPUT is the path or URI of a video, a folder, a .tar or Parquet file or a manifest, or a quoted glob. The
    dataset is then named after the folder.

    \b
    featray run clips/ --out tables
    featray run clips/ --out tables --set decode.sample='{fps: 5}' --save-config mine.yaml
    featray run mine.yaml

    Published work is not repeated; a stopped run resumes where it was. Exit status: 0 all done,
    3 finished but some videos failed, 1 the run failed, 2 the config is invalid, 129, 130 or 143
    stopped by a closed terminal, Ctrl-C or SIGTERM.
    """
    if executor:
        overrides = (*overrides, f"cluster.executor={executor}")
    if retry_failed:
        overrides = (*overrides, "run.retry_failed=true")
    if drop_deleted:
        overrides = (*overrides, "run.drop_deleted=true")
    config = read_inputs(inputs, out, overrides)
    if save_config is not None:
        save_settings(config, save_config)
    sys.exit(run_config(config, quiet=quiet, log_line=log_line, part=part))


def run_config(config: Any, *, quiet: bool = False, log_line: bool = False, part: str | None = None) -> int:
    """Run a config with progress and summary on the terminal, or one line at the end; return the exit status."""
    from featray.cli.console import open_console
    from featray.cli.summary import as_log_line, exit_status, print_landed, print_summary
    from featray.run.part import Part, land_part
    from featray.run.progress import Progress
    from featray.run.runner import run as run_job

    outlive_reader()
    console = open_console()
    progress = Progress(console, quiet=quiet or log_line)
    if part is not None:
        return print_landed(land_part(config, Part.parse(part), progress), console, log_line=log_line)
    summary = run_job(config, progress)
    if log_line:
        click.echo(as_log_line(summary))
    else:
        print_summary(summary, console)
    return exit_status(summary)


@main.command(short_help="Run SQL (DuckDB) over the tables of OUT.")
@click.argument("out")
@click.argument("sql")
@click.option("--format", "style", type=_FORMATS, default="table", show_default=True)
@click.option("--release", help="A release, or `all`; default: the latest of each dataset.")
@click.option("--derivation", help="A derivation of tracks and events, or `all`; default: the latest.")
@click.option("--safe", is_flag=True, help="For untrusted SQL: allow only SELECT, and nothing outside OUT.")
@safe_csv_flag
@storage_flags
def query(
    out: str,
    sql: str,
    style: str,
    release: str | None,
    derivation: str | None,
    safe: bool,
    safe_csv: bool,
    config: Path | None,
    options: tuple[str, ...],
) -> None:
    """Run SQL (DuckDB) over the tables of the output OUT; @FILE reads the SQL from a file.

    Columns with equal names are numbered: pts_us, pts_us_1, pts_us_2. On a terminal a table is cut to its width and to
    1000 rows; in a pipe or a file it is complete.

    \b
    featray query OUT "SELECT video_id, avg(AU12) FROM faces GROUP BY video_id"
    featray query OUT @configs/queries/au12_onsets.sql

    SQL can read and write any file that you can (read_csv, COPY), and load DuckDB's extensions. With --safe it can only
    select, from the tables and files of OUT. If OUT is from somebody else and the result is for a spreadsheet, add
    --safe-csv to --format csv.
    """
    from featray.cli.show import print_result
    from featray.tables.query import has_synthetic_weights, steady_sql

    if sql.startswith("@"):
        sql = _read_sql(Path(sql[1:]))
    if not sql.strip():
        raise UsageError("query: the SQL is empty; write a SELECT, such as 'SELECT * FROM faces LIMIT 5'")
    output = open_told(out, config, options)
    connection, rows = steady_sql(output, sql, release, derivation, safe=safe)
    print_result(rows, style, safe_csv=safe_csv)
    with suppress(FeatrayError):  # the SQL may have replaced the view `runs`
        if sys.stderr.isatty() and has_synthetic_weights(connection):
            from featray.tables.provenance import SYNTHETIC_WEIGHTS

            click.echo(SYNTHETIC_WEIGHTS, err=True)


def _read_sql(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "is not text"
        raise UsageError(f"query: @{path}: {reason}; name a file with SQL") from None


@main.command()
@click.argument("table", required=False)
@click.option("--format", "style", type=click.Choice(["table", "markdown"]), default="table", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def schema(table: str | None, style: str, as_json: bool) -> None:
    """Print the data dictionary of one TABLE or of all tables.

    \b
    featray schema faces
    """
    from featray.cli.show import print_schema, schema_json, schema_markdown

    if as_json:
        click.echo(schema_json(table))
    elif style == "markdown":
        click.echo(schema_markdown(table), nl=False)
    else:
        print_schema(table)


@main.command(short_help="Run the main job on two bundled clips.")
@click.option("--out", default="demo-output", show_default=True, help="Folder or URI for the tables.")
def demo(out: str) -> None:
    """Run the main job on two bundled clips, using only what ships in the package; needs no network."""
    from featray.cli.demo import run_demo

    sys.exit(run_demo(out))


main.add_command(models)
_COMMANDS = (
    plan,
    status,
    report,
    diff,
    evaluate,
    doctor,
    verify,
    erase,
    publish,
    compact,
    derive,
    persons,
    preview,
    export,
    view,
)
for command in _COMMANDS:
    main.add_command(command)
