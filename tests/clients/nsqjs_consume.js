// An nsqjs consumer that finds its producers through nsqlookupd, finishes what it gets, and prints each body as a line.
//
//     NODE_PATH=... node nsqjs_consume.js LOOKUPD_HTTP_ADDRESS TOPIC CHANNEL POLL_SECONDS

const {Reader} = require('nsqjs')

const [lookupd, topic, channel, poll] = process.argv.slice(2)
const options = {lookupdHTTPAddresses: [lookupd], lookupdPollInterval: Number(poll), maxInFlight: 10}
const reader = new Reader(topic, channel, options)
reader.on(Reader.MESSAGE, (message) => {
  process.stdout.write(`${message.body}\n`)
  message.finish()
})
// An nsqd that has died is an error of its connection, and no reason to end.
reader.on(Reader.ERROR, () => {})
reader.connect()
