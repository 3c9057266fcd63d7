#!/usr/bin/env python3
"""A real Kubernetes cluster for this checkout, from whatever the machine has. README.md beside this file tells how."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from parts import cluster, images, ways
from parts.settings import Settings, bin_folder
from parts.steps import GroundError, say, tail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", help="another cluster of this checkout, beside the usual one")
    parser.add_argument("--kubeconfig", help="where to write it (.ground/kubeconfig)")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default=argparse.SUPPRESS)
    common.add_argument("--kubeconfig", default=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "a cluster that answers; returns at once when there is one"),
        ("down", "remove it, and stop our own Docker daemon when nothing else runs on it"),
        ("images", "build the project's images and put them into the cluster; skips what did not change"),
        ("load", "put images of the Docker daemon into the cluster"),
        ("env", "print exports of PATH, KUBECONFIG and PGTEND_AUDIT_LOG, for eval"),
        ("status", "print as JSON what there is; exit 1 unless the cluster answers"),
    ):
        command = commands.add_parser(name, help=text, parents=[common])
        if name == "down":
            command.add_argument("--keep-docker", action="store_true", help="leave the Docker daemon running")
        if name == "images":
            command.add_argument("group", nargs="*", choices=[*images.GROUPS, []], help="all when none is given")
            command.add_argument("--checkout", type=Path, help="operator and tools of another checkout, with --tag")
            command.add_argument("--tag", default="dev", help="of those of another checkout")
        if name == "load":
            command.add_argument("image", nargs="+")
    arguments = parser.parse_args()
    settings = Settings.of(name=arguments.name, kubeconfig=arguments.kubeconfig)
    try:
        return run(arguments, settings)
    except GroundError as error:
        say(f"ground: {arguments.command} failed\n  cause:  {error.cause}\n  remedy: {error.remedy}")
        if error.log:
            say(f"  log:    {error.log}\n" + "\n".join(f"    | {line}" for line in tail(error.log)))
        return 1


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    match arguments.command:
        case "up":
            ways.up(settings)
        case "down":
            ways.down(settings, keep_docker=arguments.keep_docker)
        case "images":
            images.build_and_load(settings, groups=arguments.group, checkout=arguments.checkout, tag=arguments.tag)
        case "load":
            images.load(settings, arguments.image)
        case "env":
            print(f'export PATH={shlex.quote(str(bin_folder()))}:"$PATH"')
            print(f"export KUBECONFIG={shlex.quote(str(settings.kubeconfig))}")
            print(f"export PGTEND_AUDIT_LOG={shlex.quote(str(settings.audit / 'audit.log'))}")
        case "status":
            answers = cluster.ready(settings.kubeconfig)
            facts = {"name": settings.name, "answers": answers, **settings.recall()}
            facts |= {"kubeconfig": str(settings.kubeconfig), "auditLog": str(settings.audit / "audit.log")}
            print(json.dumps(facts, indent=2))
            return 0 if answers else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
