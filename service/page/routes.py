"""The routers of the page, in the order in which they are asked: `/trainings/new` is no training."""

from __future__ import annotations

from service.page import api_keys, models, new_training, queue, sign_in, static_files, trainings

ROUTERS = (static_files.router, sign_in.router, new_training.router, trainings.router, models.router, queue.router, api_keys.router)
