"""``seedvr2 tokens``: a new token, and the line that lets it in."""

import argparse
import datetime

from services.cli.output import print_result, tell
from services.gateway.identity.caller import Role
from services.gateway.identity.tokens import new_token, token_line


def create(arguments: argparse.Namespace) -> int:
    """Make a token. It is shown once and kept nowhere: the line holds its hash only."""
    token, expires_at = new_token(), None
    if arguments.days is not None:
        expires_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=arguments.days)
    line = token_line(arguments.subject, Role(arguments.role), token, expires_at)
    if not arguments.json:
        tell("For its owner, and shown only now:")
    print_result(arguments.json, {"token": token, "line": line}, token)
    if not arguments.json:
        tell(f"\nFor the gateway's token file (SEEDVR2_IDENTITY_TOKEN_FILE):\n{line}")
    return 0
