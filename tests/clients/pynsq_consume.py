"""A pynsq consumer that finds its producers through nsqlookupd, finishes what it gets, and prints each body as a line.

    python pynsq_consume.py LOOKUPD_HTTP_ADDRESS TOPIC CHANNEL POLL_SECONDS
"""

import logging
import sys

import nsq


def take(message):
    print(message.body.decode(), flush=True)
    return True


logging.disable()  # pynsq tells of every connection; what matters is printed
lookupd, topic, channel, poll = sys.argv[1:]
nsq.Reader(topic, channel, message_handler=take, lookupd_http_addresses=[lookupd], lookupd_poll_interval=int(poll),
           max_in_flight=10)
nsq.run()
