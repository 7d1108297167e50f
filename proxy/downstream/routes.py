"""Which routes the proxy answers itself. Everything that is not in this table is passed on."""

from aiohttp import web

from proxy.downstream.answers_first import AnswersFirst
from proxy.downstream.control import Control
from proxy.downstream.history_view import HistoryView
from proxy.downstream.jobs_view import JobsView
from proxy.downstream.orders import Orders
from proxy.downstream.queue_control import QueueControl
from proxy.downstream.queue_view import QueueView
from proxy.downstream.restored import Restored
from proxy.downstream.sockets import Sockets
from proxy.downstream.status import StatusView
from proxy.downstream.submit import Submit
from proxy.engine import Engine


def add_routes(app: web.Application, engine: Engine, sockets: Sockets, answers_first: AnswersFirst) -> None:
    """Add the routes to `app`; ComfyUI's own also exist under `/api`."""
    submit, restored, control = Submit(engine, answers_first), Restored(engine), Control(engine)
    queue, history, jobs = QueueView(engine, restored), HistoryView(engine, restored), JobsView(engine, restored)
    to_the_end = Orders(engine).to_the_end
    for prefix in ("", "/api"):
        app.router.add_post(f"{prefix}/prompt", submit.handle)
        app.router.add_post(f"{prefix}/free", to_the_end(submit.free))
        app.router.add_get(f"{prefix}/ws", sockets.handle, allow_head=False)
        app.router.add_get(f"{prefix}/prompt", queue.count, allow_head=False)
        app.router.add_get(f"{prefix}/queue", queue.show, allow_head=False)
        app.router.add_post(f"{prefix}/queue", to_the_end(queue.change))
        app.router.add_post(f"{prefix}/interrupt", to_the_end(queue.interrupt))
        app.router.add_post(f"{prefix}/history", to_the_end(queue.change_history))
        app.router.add_get(f"{prefix}/history", history.page, allow_head=False)
        app.router.add_get(f"{prefix}/history/{{prompt_id}}", history.entry, allow_head=False)
    app.router.add_get("/api/jobs", jobs.page, allow_head=False)
    app.router.add_post("/api/jobs/cancel", to_the_end(jobs.cancel_several))
    app.router.add_get("/api/jobs/{job_id}", jobs.one, allow_head=False)
    app.router.add_post("/api/jobs/{job_id}/cancel", to_the_end(jobs.cancel))
    app.router.add_get("/comfykeep/status", StatusView(engine).show)
    app.router.add_get("/comfykeep/mode", control.get_mode)
    app.router.add_put("/comfykeep/mode", control.set_mode)
    app.router.add_get("/comfykeep/prompts/{prompt_id}", control.prompt)
    operate = QueueControl(engine)
    app.router.add_get("/comfykeep/prompts/{prompt_id}/story", operate.story)
    app.router.add_get("/comfykeep/queue", operate.show)
    app.router.add_post("/comfykeep/queue/pause", operate.pause)
    app.router.add_post("/comfykeep/queue/resume", operate.resume)
    app.router.add_post("/comfykeep/queue/front", operate.front)
    app.router.add_post("/comfykeep/queue/cancel", operate.cancel)
