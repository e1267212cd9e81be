"""`policy`: what policies can read, and whether they fit the workspace and its tools."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from agentguard.cli.context import policy_of, tools_of, workspace_of
from agentguard.cli.output import ERROR, Json, print_json, say, some, visible
from agentguard.errors import PolicyError
from agentguard.model import Stage, any_tool_of, group_of

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What policies can read, and what is wrong."
)

Bindings = Annotated[
    str | None, typer.Option(metavar="MODULE:NAME", help="Your list of declared tools.")
]


@app.command("schema")
def schema(ctx: typer.Context, bindings: Bindings = None, json_: Json = False) -> None:
    """Print the Cedar schema: what policies can read of each tool's calls.

    It is the default schema with one action for each tool, and one that stands for the tools of
    a stage that has none. Arguments that have no type in Cedar are named in a comment. Without
    --bindings it knows the guard's own tools only.

    \b
    Example:
      $ agentguard policy schema --bindings tools:TOOLS > agentguard.cedarschema

    Next: write a policy, then `agentguard policy check --bindings tools:TOOLS`.
    """
    from agentguard.policy.policy_set import default_schema
    from agentguard.policy.tool_types import schema_text

    tools = tools_of(workspace_of(ctx), bindings)
    if json_:
        print_json(
            {
                name: {
                    "stage": tool.stage,
                    "group": tool.group,
                    "arguments": {name: each.data for name, each in tool.arguments.items()},
                    "left_out": list(tool.left_out),
                }
                for name, tool in tools.items()
            }
        )
        return
    taken = {tool.group for tool in tools.values()}
    others = (any_tool_of(stage) for stage in (*Stage, None) if group_of(stage) not in taken)
    typer.echo(schema_text(default_schema(), [*tools.values(), *others]).strip())


@app.command("check")
def check(ctx: typer.Context, bindings: Bindings = None, json_: Json = False) -> None:
    """Say what is wrong with the policies, as the guard would when it opens.

    They parse, fit the schema for each tool, and name no tool, argument, choice, agent,
    destination or group that there is not. One thing more than the guard asks: no approval may
    turn a yes into a no (context.approvals == 1), or people would answer in vain. Exits 1 if
    something is wrong.

    \b
    Example:
      $ agentguard policy check --bindings tools:TOOLS

    Next: `agentguard explain --tool NAME --args JSON` tries one on a supposed call.
    """
    from agentguard.policy.policy_set import known_names
    from agentguard.policy.simulate import fallen_releases

    workspace = workspace_of(ctx)
    tools = tools_of(workspace, bindings)
    wrong: list[str] = []
    count = 0
    try:
        policy = policy_of(workspace)
        count = len(policy.rules)
        known = known_names(workspace, tools.values())
        policy.require_fits(known if bindings is not None else replace(known, other_tools=None))
        if policy.monotone_violations():
            fallen = fallen_releases(workspace, policy)
            if fallen:
                wrong = [f"more approvals turn a yes into a no: {some(fallen)}"]
                wrong += policy.monotone_violations()
    except PolicyError as error:
        wrong = str(error).splitlines()
    if json_:
        print_json({"ok": not wrong, "policies": count, "tools": len(tools), "wrong": wrong})
    for line in wrong if not json_ else ():
        say(f"error: {visible(line, 2000)}", err=True)
    if wrong:
        raise typer.Exit(ERROR)
    if json_:
        return
    say(f"{count} policies fit the workspace and {len(tools)} tools")
    if bindings is None:
        say("Your own tools were not looked at: name them, --bindings MODULE:NAME")
