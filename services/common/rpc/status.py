"""Errors of ours to gRPC status codes and back, with google.rpc details. The only place that knows both."""

import logging
from collections.abc import Callable
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.common import errors
from services.common.errors import ServiceError
from services.common.rpc.handlers import rewrapped

_log = logging.getLogger(__name__)
_DOMAIN = "seedvr2"
INTERNAL_TEXT = "Something went wrong inside the service; its log has the details under this request's id."
"""What anybody is told of an error that is ours."""

_CODES: dict[type[ServiceError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SettingsError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RangeOutOfBounds: grpc.StatusCode.OUT_OF_RANGE,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.TooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.JobCancelled: grpc.StatusCode.CANCELLED,
    errors.NotSupported: grpc.StatusCode.UNIMPLEMENTED,
    errors.ServiceError: grpc.StatusCode.INTERNAL,
}
_CLASSES: dict[grpc.StatusCode, type[ServiceError]] = {
    code: cls for cls, code in _CODES.items() if cls is not errors.SettingsError
} | {
    grpc.StatusCode.INTERNAL: errors.InternalError,
    grpc.StatusCode.UNKNOWN: errors.InternalError,
}


def code_of(error: type[ServiceError]) -> grpc.StatusCode:
    """The status code of an error class: its own, or that of the nearest class above it."""
    return next(_CODES[cls] for cls in error.__mro__ if cls in _CODES)


def canonical_code(error: type[ServiceError]) -> int:
    """The same as a number of google.rpc.Code, as jobs store it."""
    return int(code_of(error).value[0])


def status_of(error: ServiceError) -> status_pb2.Status:
    """The whole status: code, sentence, ErrorInfo, and BadRequest, QuotaFailure, ResourceInfo or RetryInfo where they apply."""
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=_DOMAIN)]
    if isinstance(error, errors.QuotaExceeded):
        quota = error_details_pb2.QuotaFailure.Violation(subject=error.field, description=error.message)
        details.append(error_details_pb2.QuotaFailure(violations=[quota]))
    elif error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.NotFound):
        kind = type(error).__name__.removesuffix("NotFound").lower() or "object"
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, description=error.message))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration(nanos=int(error.retry_after_s % 1 * 1e9), seconds=int(error.retry_after_s))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return status_pb2.Status(code=canonical_code(type(error)), message=error.message, details=[_packed(d) for d in details])


def error_of(failure: grpc.RpcError) -> ServiceError:
    """The error that the other side raised, as the same class; for other failures the nearest one."""
    code = failure.code() if hasattr(failure, "code") else grpc.StatusCode.UNKNOWN
    text = (failure.details() if hasattr(failure, "details") else "") or str(failure)
    status = rpc_status.from_call(failure) if hasattr(failure, "trailing_metadata") else None
    cls, field, retry_after_s = _CLASSES.get(code, errors.InternalError), "", None
    for detail in status.details if status else []:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = _unpacked(detail, error_details_pb2.ErrorInfo())
            cls = errors.all_errors().get(info.reason, cls) if info.domain == _DOMAIN else cls
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            field = _unpacked(detail, error_details_pb2.BadRequest()).field_violations[0].field
        elif detail.Is(error_details_pb2.QuotaFailure.DESCRIPTOR):
            field = _unpacked(detail, error_details_pb2.QuotaFailure()).violations[0].subject
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = _unpacked(detail, error_details_pb2.RetryInfo()).retry_delay
            retry_after_s = delay.seconds + delay.nanos / 1e9
    return cls(text, field=field, retry_after_s=retry_after_s)


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Handlers raise; this answers. Cancellation passes through, because that is how work stops."""

    async def intercept_service(self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of one call."""
        handler = await continuation(details)
        return rewrapped(handler, unary=_wrap_unary, stream=_wrap_stream) if handler else None


def _wrap_unary(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await handler(request, context)
        except Exception as error:
            await _abort(context, error)

    return answer


def _wrap_stream(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            async for response in handler(request, context):
                yield response
        except Exception as error:
            await _abort(context, error)

    return answer


async def _abort(context: grpc.aio.ServicerContext, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError | grpc.aio.BaseError):
        raise error
    if isinstance(error, ServiceError) and code_of(type(error)) is not grpc.StatusCode.INTERNAL:
        status = status_of(error)
    else:
        _log.error("a call failed inside the service", exc_info=error)
        status = status_of(errors.InternalError(INTERNAL_TEXT))
    answer = rpc_status.to_status(status)
    await context.abort(answer.code, answer.details, answer.trailing_metadata)
    raise AssertionError("abort returned")


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _unpacked(packed: any_pb2.Any, into: Any) -> Any:
    packed.Unpack(into)
    return into
