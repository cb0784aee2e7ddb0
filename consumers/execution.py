"""Run a claimed attempt to its end: in every case its outcome is stored or its claim is released."""

from __future__ import annotations

import structlog

from consumers.attempt import ClaimedAttempt
from consumers.completion import Completion
from consumers.threads import StepThreads
from orchestrator.activity import doing
from orchestrator.db.processes.claims import Claim
from orchestrator.db.session import is_connection_error
from orchestrator.engine.events import CodeChanged, Failure, Loss, StepFailed
from orchestrator.errors import FencedError, WorkflowChangedError
from orchestrator.log import hide_in_log, log_fields
from orchestrator.services.steps import execute
from orchestrator.settings import Limits
from orchestrator.shares import Admission, working_for
from orchestrator.text import format_error, format_message

logger = structlog.get_logger(__name__)


async def run_attempt(
    attempt: ClaimedAttempt, admission: Admission, completion: Completion, limits: Limits, threads: StepThreads
) -> Claim | None:
    """Run the step of an attempt in this task, once it is admitted, and store its outcome.

    Returns:
        The claim of the next step, if this consumer goes on with it.
    """
    process = attempt.process
    fields = log_fields(process)
    structlog.contextvars.bind_contextvars(**fields)
    with doing(f"the step {process.step!r} of {process.workflow!r}", **fields) as activity:
        attempt.activity = activity
        activity.ends_program = activity.pauses = True
        # At debug, because it is a line for each step; LongSteps reports a step that hangs.
        logger.debug("step started")
        return await _execute_and_store(attempt, admission, completion, limits, threads)


async def _execute_and_store(
    attempt: ClaimedAttempt, admission: Admission, completion: Completion, limits: Limits, threads: StepThreads
) -> Claim | None:
    try:
        # The step's connections and threads count for its queue, and so do those of tasks that it starts.
        queue = attempt.leaf.queue
        working_for.set(queue)
        if attempt.needs_connection:
            await admission.wait(queue)
        await attempt.read_token()
        if attempt.token is not None:
            hide_in_log(attempt.token)
        outcome = await execute(attempt, limits, threads)
        return await completion.store(attempt, attempt.annotate(outcome))
    except WorkflowChangedError as error:
        await completion.store(attempt, CodeChanged(Failure(type(error).__name__, str(error))))
    except FencedError as error:
        logger.info("attempt overtaken", reason=str(error))
    except Exception as error:
        await attempt.discard()
        if is_connection_error(error):
            logger.warning("database lost during the step", error=format_message(error))
            await completion.release(attempt, Loss.INTERRUPTED, "lost its database connection during the step")
            return None
        # A bug in the engine. The process must not stay claimed for ever by a consumer that lives on.
        logger.exception("attempt not finished")
        text = attempt.redact(f"the engine could not finish this attempt: {format_error(error)}")
        await _fail(attempt, completion, Failure(type(error).__name__, text))
    finally:
        await attempt.discard()
    return None


async def _fail(attempt: ClaimedAttempt, completion: Completion, failure: Failure) -> None:
    try:
        await completion.store(attempt, StepFailed(attempt.process.attempt, failure))
    except FencedError as error:
        logger.info("attempt overtaken", reason=str(error))
