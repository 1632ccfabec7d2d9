"""`logstore acl`: the least ACLs of who works with a store, printed or set."""

import shlex

import click

from logstore.cli import options, show
from logstore.log import acls
from logstore.log.connect.acl import Acl
from logstore.log.connect.roles import EVERY, ROLES, acls_of
from logstore.log.kafka.clients import admin
from logstore.log.tables.registry import Registry
from logstore.model.table import check_name
from logstore.node.addresses import given_bootstrap, need_bootstrap
from logstore.settings import Settings

_MAKES_TABLES = "admin"


@click.command()
@options.with_settings("bootstrap", "data_dir")
@click.option("--principal", required=True, metavar="User:NAME", help="Whom Kafka is to allow it.")
@click.option("--role", required=True, metavar="|".join(ROLES), help="What the principal does with the store.")
@click.option("--table", "name", metavar="NAME", help="The one table it may do that with.  [default: all]")
@click.option("--apply", "applies", is_flag=True, help="Set them; wants ALTER on the cluster.")
@click.option("--commands", is_flag=True, help="Print calls of Kafka's own kafka-acls.sh.")
@options.AS_JSON
def acl(
    settings: Settings, principal: str, role: str, name: str | None, applies: bool, commands: bool, as_json: bool
) -> None:
    """Print the least ACLs that a role needs, or set them.

    A role on one table is one on the topic that the table has now; a table that is made again has another.
    """
    acls.check_principal(principal)
    wanted = acls_of(role, _topic(settings, role, name))
    if applies:
        acls.allow(admin(need_bootstrap(settings)), principal, wanted)
    if commands:
        for one in wanted:
            click.echo(_command(given_bootstrap(settings) or "HOST:PORT", principal, one))
    elif as_json:
        show.as_json({"principal": principal, "role": role, "applied": applies, "acls": [a._asdict() for a in wanted]})
    else:
        show.table([*Acl._fields, "principal"], [(*one, principal) for one in wanted])


def _topic(settings: Settings, role: str, name: str | None) -> str:
    """The topic of a table; an admin may make the table first. Raises NoSuchTable, BadDefinition."""
    acls_of(role)
    if name is None:
        return EVERY
    if role == _MAKES_TABLES:
        return check_name(name)
    return Registry(need_bootstrap(settings)).table(name).topic


def _command(bootstrap: str, principal: str, one: Acl) -> str:
    named = ["--cluster"] if one.resource == "cluster" else [f"--{one.resource}", one.name]
    words = [
        "kafka-acls.sh", "--bootstrap-server", bootstrap, "--command-config", "admin.properties", "--add",
        "--allow-principal", principal, "--operation", one.operation.title().replace("_", ""), *named,
        "--resource-pattern-type", one.pattern.lower(),
    ]  # fmt: skip
    return shlex.join(words)
