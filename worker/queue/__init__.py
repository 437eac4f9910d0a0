"""Delivery of pending rows to workers: arq's queue on Redis or Valkey. Losing it loses nothing.

The row in the store is the truth and an arq job is only a doorbell, so every promise made here is weak on
purpose: a job may be lost, doubled, late or forged. What is kept is arq's: the layout of the queue in
Redis, the shape of a job, the worker's table of functions, the cron. What is replaced is arq's loop, which
ends with its Redis connection, hangs on a frozen one, asks every half second and takes six round trips for
a job (see `engine`). Nothing outside this package knows arq.

==============  =======================================================================
`connection`    DSNs, bounded connections, the two errors
`jobs`          the names of queues and keys, the shape of a job, what is refused
`ringing`       `Queue`, for whoever rings: client, worker, reaper
`engine`        the loop: pick, run, finish, and weather every outage
`workers`       `QueueWorker`, which runs operations, and `SweepCron`, the reaper's cron
==============  =======================================================================
"""

from worker.queue.connection import InvalidDSN, QueueUnavailable
from worker.queue.enqueue import Queue
from worker.queue.jobs import Delivery, DeliveryState
from worker.queue.workers import QueueWorker, SweepCron

__all__ = [
    "Delivery",
    "DeliveryState",
    "InvalidDSN",
    "Queue",
    "QueueUnavailable",
    "QueueWorker",
    "SweepCron",
]
