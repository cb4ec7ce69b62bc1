"""The command qkscope-lm-eval: lm-eval's own, with a served model. Without
lm-eval it says how to install it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Optional
from urllib.parse import quote

from qkscope.errors import InvalidRequest, QkscopeError
from qkscope.evals.text_model import OPTIONS, parse_arm
from qkscope.extras import need

_HELP = """\
usage: qkscope-lm-eval [--arm SPEC]
           [--model_args server=HOST:PORT,model=NAME,...] --tasks TASK...
           [other options of lm-eval run]

Runs lm-eval on a model of a qkscope server. `--model qkscope` is set.
--arm: what is done to Q and K, as of `qkctl --arm` (default: clean).
Model arguments: server, model, arm, token, token_file, ca, timeout, batch_size,
max_gen_toks, """ + ", ".join(OPTIONS) + """.
The options of lm-eval follow.
"""


def _lm_eval_arguments(arguments: Sequence[str]) -> list[str]:
    """lm-eval's command line: our --arm becomes a model argument."""
    out, arm, model = [], None, False
    batch = False
    items = iter(arguments)
    for item in items:
        name, equals, value = item.partition("=")
        batch = batch or name in ("--batch_size", "-b")
        if name == "--arm":
            arm = value if equals else next(items, None)
            if arm is None:
                raise InvalidRequest("--arm: needs an arm, such as top_k:1")
            continue
        model = model or name in ("--model", "-M")
        out.append(item)
    if not out or out[0] not in ("run", "ls", "validate"):
        out.insert(0, "run")
    if out[0] == "run":
        if not model:
            out += ["--model", "qkscope"]
        if not batch:
            out += ["--batch_size", "auto"]  # lm-eval's default is 1.
        if arm is not None:
            parse_arm(arm)
            out += ["--model_args", "arm=" + quote(arm, safe=":=/;+.-")]
    return out


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command qkscope-lm-eval. Returns the exit code: 2 for wrong usage, 1
    for other errors."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    log = logging.getLogger("qkscope.evals")
    if not given or given[0] in ("-h", "--help"):
        print(_HELP, flush=True)
        given = ["run", "--help"]
    try:
        need("lm_eval", "lm-eval")
        import qkscope.evals.lm_eval  # pylint: disable=unused-import
        from lm_eval.__main__ import cli_evaluate
        sys.argv = ["lm-eval", *_lm_eval_arguments(given)]
        cli_evaluate()
        return 0
    except KeyboardInterrupt:
        print("qkscope-lm-eval: interrupted", file=sys.stderr)
        return 130
    except QkscopeError as error:
        log.debug("", exc_info=True)
        print(f"qkscope-lm-eval: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidRequest) else 1
    except (ValueError, OSError) as error:  # How lm-eval says what is wrong.
        log.debug("", exc_info=True)
        print(f"qkscope-lm-eval: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
