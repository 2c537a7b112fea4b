"""`build`."""

import json
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

from cli.build import cache as caches
from cli.build import output as outputs
from cli.build.cache import Caches
from cli.build.delivery import deliver
from cli.build.output import Output
from cli.build.progress import progress, ticking
from cli.build.source import Source, source
from cli.build.ssh import agents
from cli.build.upload import Conversation
from cli.client import Client
from cli.command import Flags, argument, command, flag, switch
from cli.parse import pair, process, size
from shoal import reference as references
from shoal.errors import InvalidArgument, ShoalError, Unsupported
from shoal.v1 import build_pb2
from shoal.v1.types_pb2 import Ulimit


def _name(text: str) -> str:
    references.parse(text)
    return text


class BuildFlags(Flags):
    """What `docker build` has."""

    add_host: Annotated[
        list[str],
        flag(
            "--add-host",
            metavar="list",
            parse=process.extra_host,
            late=True,
            help="Add a custom host-to-IP mapping (host:ip)",
        ),
    ] = []
    build_arg: Annotated[list[str], flag("--build-arg", metavar="list", help="Set build-time variables")] = []
    cache_from: Annotated[
        list[str],
        flag(
            "--cache-from",
            metavar="list",
            help='Cache of earlier builds ("user/app:cache", "type=local,src=path/to/dir")',
        ),
    ] = []
    cache_to: Annotated[
        list[str],
        flag(
            "--cache-to", metavar="list", help='Where to keep the cache ("type=registry,ref=user/app:cache,mode=max")'
        ),
    ] = []
    debug_shell: Annotated[
        bool, switch("--debug-shell", help="When a RUN fails, open a shell where it failed, with what it wrote")
    ] = False
    force_rm: Annotated[
        bool, switch("--force-rm", help="Leave no container of a step behind, which is what happens anyway")
    ] = False
    file: Annotated[str, flag("-f", "--file", help='Name of the Dockerfile (default: "PATH/Dockerfile")')] = ""
    iidfile: Annotated[str, flag("--iidfile", help="Write the image ID to a file")] = ""
    label: Annotated[list[str], flag("--label", metavar="list", help="Set metadata for an image")] = []
    load: Annotated[
        bool, switch("--load", help="Keep the image on the host that builds it, which is what happens anyway")
    ] = False
    metadata_file: Annotated[
        str, flag("--metadata-file", help="Write what was built to a file, as JSON: the image's id and its names")
    ] = ""
    network: Annotated[str, flag("--network", help="Network of RUN instructions: default, none or host")] = "default"
    no_cache: Annotated[bool, switch("--no-cache", help="Do not use what earlier builds came to")] = False
    no_cache_filter: Annotated[
        list[str],
        flag("--no-cache-filter", metavar="list", help="Stages for which nothing of earlier builds is used"),
    ] = []
    node: Annotated[str, flag("--node", help="Node of the cluster to build on, through the manager")] = ""
    output: Annotated[
        list[str], flag("-o", "--output", metavar="list", help='Where the result goes ("type=local,dest=path")')
    ] = []
    platform: Annotated[str, flag("--platform", help="Platform to build for; it must be the host's own")] = ""
    progress: Annotated[str, flag("--progress", help="How progress is shown: auto, plain, tty or quiet")] = "auto"
    pull: Annotated[bool, switch("--pull", help="Ask registries for newer base images")] = False
    push: Annotated[bool, switch("--push", help='Push the image to where its tags say ("-o type=registry")')] = False
    quiet: Annotated[bool, switch("-q", "--quiet", help="Print the image ID alone, on success")] = False
    rm: Annotated[bool, switch("--rm", help="Leave no container of a step behind, which is what happens anyway")] = True
    secret: Annotated[
        list[str], flag("--secret", metavar="list", help="Secret for RUN --mount=type=secret (id=name,src=path)")
    ] = []
    shm_size: Annotated[
        int, flag("--shm-size", metavar="bytes", parse=size.size, help="Size of /dev/shm of RUN instructions")
    ] = 0
    ssh: Annotated[
        list[str], flag("--ssh", metavar="list", help='SSH agent for RUN --mount=type=ssh ("default", "id=socket")')
    ] = []
    tag: Annotated[
        list[str], flag("-t", "--tag", metavar="list", parse=_name, late=True, help='Name of the image ("name:tag")')
    ] = []
    target: Annotated[str, flag("--target", help="Stage to build")] = ""
    ulimit: Annotated[
        list[Ulimit], flag("--ulimit", metavar="ulimit", parse=process.ulimit, help="Ulimit options")
    ] = []


@command(
    "[OPTIONS] PATH | URL | -",
    examples=[
        "shoal build -t web:1 .",
        "shoal build --target test --build-arg VERSION=2 -f Dockerfile.test .",
        "shoal build --node n3 -t web:1 .",
        "shoal build -o out --secret id=key,src=key.pem .",
    ],
)
async def build(client: Client, flags: BuildFlags, path: Annotated[str, argument()]) -> None:
    """Build an image from a Dockerfile"""
    if not flags.rm:
        raise Unsupported("--rm=false is not supported", hint="steps leave nothing; see --debug-shell")
    target = outputs.output([*flags.output, *(["type=registry"] if flags.push else [])])
    if target.kind == "push" and not flags.tag:
        raise InvalidArgument("tag is needed when pushing to registry", hint="name the image with -t")
    shown = progress("quiet" if flags.quiet else flags.progress, sys.stderr)
    client = client.on(flags.node) if flags.node else client
    lent = agents(flags.ssh, pair.own_environment())
    opening = _opening(flags, target)
    opening.ssh.extend(lent)
    kept = _cache(flags, opening)
    with source(path, flags.file) as found:  # nothing else waits for this loop yet
        _describe(opening, found)
        conversation = Conversation(client.calls, found.context, shown, lent, kept)
        try:
            async with ticking(shown), aclosing(conversation.follow(opening)) as pieces:
                await deliver(pieces, target)
        except ShoalError:
            shown.end(failed=True)
            if conversation.excerpt:
                print(conversation.excerpt, file=sys.stderr)
            if conversation.debug_image:
                from cli.build.shell import look_into  # a sixth of a start, for a step that failed

                await look_into(client, conversation.debug_image)
            raise
    kept.finish()
    shown.end(failed=False)
    if conversation.image_id:
        _write_down(flags, conversation.image_id)  # again nothing else waits, and a thread is a tenth of a command
    if target.kind == "push":
        from cli.distribution import push_image  # for who pushes

        for tag in flags.tag:
            await push_image(client, tag, quiet=flags.quiet, out=sys.stderr)
    if flags.quiet and conversation.image_id:
        print(conversation.image_id)


def _write_down(flags: BuildFlags, image_id: str) -> None:
    """What was made, in the files that were asked for."""
    names = [references.parse(each).with_default_tag().canonical for each in flags.tag]
    said = {"containerimage.config.digest": image_id, **({"image.name": ",".join(names)} if names else {})}
    for path, text in ((flags.iidfile, image_id), (flags.metadata_file, json.dumps(said, indent=2))):
        try:
            if path:
                Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ShoalError(f"open {path}: {(error.strerror or str(error)).lower()}") from error


def _opening(flags: BuildFlags, target: Output) -> build_pb2.BuildOpen:
    own = pair.own_environment()
    arguments = outputs.arguments(flags.build_arg, own)
    return build_pb2.BuildOpen(
        target=flags.target,
        arguments=arguments,
        labels=pair.labels(flags.label),
        tags=flags.tag,
        no_cache=flags.no_cache,
        no_cache_stages=[name for each in flags.no_cache_filter for name in each.split(",")],
        pull=flags.pull,
        network=flags.network,
        hosts=flags.add_host,
        shm_size_bytes=flags.shm_size,
        ulimits=flags.ulimit,
        platform=flags.platform,
        debug=flags.debug_shell,
        secrets=outputs.secrets(flags.secret, own),
        epoch=outputs.epoch(arguments, own),
        output=target.wire,
    )


def _cache(flags: BuildFlags, opening: build_pb2.BuildOpen) -> Caches:
    """Those in folders; what the agent is to know of caches goes into `opening`."""
    given, wanted = caches.sources(flags.cache_from), caches.targets(flags.cache_to)
    kept = Caches(given.folders, wanted.local)
    opening.caches.extend(kept.lists())
    opening.cache_mode = kept.mode
    opening.cache_held.extend(kept.held())
    opening.cache_from.extend(given.references)
    if wanted.registry is not None:
        opening.cache_to.CopyFrom(wanted.registry)
    opening.cache_inline = wanted.inline
    return kept


def _describe(opening: build_pb2.BuildOpen, found: Source) -> None:
    opening.dockerfile = found.dockerfile
    opening.dockerfile_name = found.name
    opening.context = found.remembered
