"""What states and stages of jobs are called where people read of them."""

from services.common.pb.seedvr2.v1 import gateway_pb2 as pb

STATES = {
    pb.JOB_STATE_PENDING: "Waiting",
    pb.JOB_STATE_PLANNING: "Planning",
    pb.JOB_STATE_RESTORING: "Restoring",
    pb.JOB_STATE_JOINING: "Joining",
    pb.JOB_STATE_SUCCEEDED: "Done",
    pb.JOB_STATE_FAILED: "Failed",
    pb.JOB_STATE_CANCELLED: "Cancelled",
}
"""States of jobs."""

STAGES = {
    "waiting": "Waiting for a worker",
    "store": "Waiting for the store",
    "probe": "Reading the file",
    "plan": "Planning",
    "fetch": "Fetching the source",
    "cuts": "Looking for cuts",
    "decode": "Reading frames",
    "prepare": "Preparing frames",
    "vae_encode": "Encoding to latents",
    "dit": "Restoring",
    "vae_decode": "Decoding from latents",
    "colour": "Matching colours",
    "encode": "Writing video",
    "join": "Joining the result",
}
"""What each stage of a job is called, in the order in which frames pass through them."""
