"""Delivery of pending rows to workers: arq's queue on Redis or Valkey. Losing it loses nothing.

The row in the store is the truth and an arq job is only a doorbell, so every promise made here is weak on
purpose: a job may be lost, doubled, late or forged. What is kept is arq's: the layout of the queue in
Redis, the shape of a job, the worker's table of functions, the cron. What is replaced is arq's loop, which
ends with its Redis connection, hangs on a frozen one, asks every half second and takes six round trips for
a job (see `loop`). Nothing outside this package knows arq.

==============  =======================================================================
`dsn`           where the queue is: checked, and named without a password
`connection`    connections that never wait for ever, and the errors
`jobs`          the names of the keys, the shape of a job, what is refused
`enqueue`       `Queue`, for whoever enqueues: client, worker, reaper
`loop`          poll, run, finish, and outlive every outage
`workers`       `QueueWorker`, which runs operations, and `SweepCron`, the reapers' cron
`store_poll`    `StorePoll`: what a worker does while Redis is away
`outage`        `Outage`: what is logged of that
`server`        a private server for `decnet-reaper up`
==============  =======================================================================
"""

from worker.queue.connection import QueueUnavailable, QueueUnusable
from worker.queue.dsn import InvalidDSN
from worker.queue.enqueue import Queue
from worker.queue.jobs import Delivery, DeliveryState
from worker.queue.outage import Outage
from worker.queue.store_poll import StorePoll
from worker.queue.workers import QueueWorker, SweepCron

__all__ = [
    "Delivery",
    "DeliveryState",
    "InvalidDSN",
    "Outage",
    "Queue",
    "QueueUnavailable",
    "QueueUnusable",
    "QueueWorker",
    "StorePoll",
    "SweepCron",
]
