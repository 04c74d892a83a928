"""Pulumi's own mocks in place of its engine: the real SDK registers resources, and what it registers is kept."""

import asyncio
import copy
import runpy
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = Path(__file__).parent.parent / "deploy" / "pulumi"
PROJECT = "ai-service"
IMAGES = {"stable_image": "registry.example/team/ai:1", "canary_image": "registry.example/team/ai:2"}


@dataclass
class Registered:
    """What a program has registered: objects as they go to the API server, what each waits for, and exports."""

    objects: list = field(default_factory=list)
    after: dict = field(default_factory=dict)
    urns: set = field(default_factory=set)
    exports: dict = field(default_factory=dict)

    def of(self, kind):
        """The objects of a kind, by name."""
        return {body["metadata"]["name"]: body for body in self.objects if body["kind"] == kind}


def whole(value):
    """Whole numbers for whole numbers: on their way to the engine all are doubles."""
    if isinstance(value, dict):
        return {key: whole(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [whole(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def up(program=PROGRAM, config=(), *, status=None, node_port=None, preview=False, into=None):
    """Run a program, or a function, as `pulumi up` does; `status` and `node_port` are what the cluster says of Services."""
    import pulumi
    from pulumi.runtime import mocks, settings

    made = Registered() if into is None else into

    class Monitor(mocks.MockMonitor):
        def RegisterResource(self, request):
            answer = super().RegisterResource(request)
            assert answer.urn not in made.urns, f"{answer.urn} is registered twice: the engine refuses that"
            made.urns.add(answer.urn)
            made.after[short(answer.urn)] = {short(urn) for urn in request.dependencies}
            return answer

    class Cluster(mocks.Mocks):
        def call(self, args):
            raise AssertionError(f"the program asks for {args.token}")

        def new_resource(self, args):
            if not args.custom:
                return None, args.inputs
            made.objects.append(whole(args.inputs))
            state = copy.deepcopy(made.objects[-1])
            if state["kind"] == "Service":
                state["status"] = status
                state["spec"]["ports"][0]["nodePort"] = node_port
            return args.name, state

    @mocks.test
    def run():
        root = settings.get_root_resource()
        root.outputs.clear()
        program() if callable(program) else runpy.run_path(str(program), run_name="__main__")
        return pulumi.Output.all(**root.outputs).apply(made.exports.update)

    given = {key: value for key, value in dict(config).items() if value is not None}
    pulumi.runtime.set_all_config({f"{PROJECT}:{key}": value for key, value in given.items()})
    cluster = Cluster()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)  # the SDK asks for the current one, and `asyncio.run` of another test leaves none
    try:
        mocks.set_mocks(cluster, PROJECT, "test", preview=preview, monitor=Monitor(cluster))
        run()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    return made


def short(urn):
    """Kind and name of a resource."""
    *_, types, name = urn.split("::")
    return f"{types.rpartition(':')[2]} {name}"
