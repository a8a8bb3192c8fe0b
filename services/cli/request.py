"""A job request from what was typed."""

import argparse

from services.common.pb.seedvr2.v1 import gateway_pb2 as pb


def job_request(arguments: argparse.Namespace, container: str = "") -> pb.JobRequest:
    """The request without its source; ``container`` may be empty."""
    request = pb.JobRequest(
        model=arguments.model, seed=arguments.seed, container=container, result_uri=arguments.result_uri,
        webhook_url=arguments.webhook_url,
    )  # fmt: skip
    if arguments.scale is not None:
        request.target.scale = arguments.scale
    elif arguments.short_side is not None:
        request.target.short_side = arguments.short_side
    elif arguments.size is not None:
        request.target.box.width, request.target.box.height = arguments.size
    if arguments.frames is not None:
        request.range.frames.first, request.range.frames.end = arguments.frames
    elif arguments.time is not None:
        start_ns, end_ns = arguments.time
        request.range.time.start.FromNanoseconds(start_ns)
        if end_ns is not None:
            request.range.time.end.FromNanoseconds(end_ns)
    for name in ("colour", "crf", "encoder", "input_noise", "latent_noise", "steps", "cfg_scale"):
        if getattr(arguments, name) is not None:
            setattr(request, name, getattr(arguments, name))
    return request
