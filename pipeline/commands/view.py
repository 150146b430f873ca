"""Walk through cohorts, and what models make of them, in a browser on this machine.

PATHs: cohorts, runs or exported models, score folders, what `foldnorm label-sulci` wrote, codes of
`foldnorm embed`. Nothing is read before it is looked at. Scores with maps show where a brain has
fewer folds than healthy ones; sulci have their names under the pointer and can be seen alone, if
the folds of a cohort or a folder of `label-sulci` name them. Only this machine can ask, and only
with the address that is printed.
"""

import argparse
from pathlib import Path

from foldnorm.pipeline.commands.arguments import add_device

HELP = "walk through brains or images in a browser"
REDIRECT = '<!doctype html><meta http-equiv="refresh" content="0;url={url}">'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="folder to show")
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on (default: any that is free)"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address without opening it"
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    import tempfile
    import webbrowser

    from foldnorm.pipeline.view.library import Library
    from foldnorm.pipeline.view.server import ViewServer
    from foldnorm.preprocessing.core.errors import InputError

    if not 0 <= arguments.port < 2**16:
        raise InputError(f"expected a port below 65536, got {arguments.port}")
    server = ViewServer(Library(arguments.paths, arguments.device), arguments.port)
    try:
        print(f"{server.url}  (Ctrl-C ends it)", flush=True)
        server.library.warm_up()
        # The browser's command line, which others on this machine can read, names a file that only
        # its owner can, and not the token.
        with tempfile.NamedTemporaryFile("w", prefix="foldnorm-", suffix=".html") as redirect:
            if not arguments.no_browser:
                redirect.write(REDIRECT.format(url=server.url))
                redirect.flush()
                webbrowser.open(Path(redirect.name).as_uri())
            server.serve_forever()
    except KeyboardInterrupt:
        return 0
    finally:
        server.server_close()
    return 0
