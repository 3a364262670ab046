// nsqjs against an nsqd: each check has a topic of its own, all run at the same time, one line tells how each ended.
//
//     node nsqjs_check.js TCP_ADDRESS HTTP_ADDRESS

'use strict'

const {Reader, Writer} = require('nsqjs')

const PATIENCE = 15_000 // milliseconds that anything may take on a busy machine
const LARGE = Buffer.from({length: 100_000}, (_, i) => (i * 7) % 251)
const [tcp, http] = process.argv.slice(2)
const [host, port] = tcp.split(':')

const sleep = (millis) => new Promise((done) => setTimeout(done, millis))
const show = (value) => (Buffer.isBuffer(value) ? value.toString('latin1') : JSON.stringify(value)).slice(0, 200)

function expect(what, got, wanted) {
  const same = Buffer.isBuffer(wanted) ? wanted.equals(got) : JSON.stringify(got) === JSON.stringify(wanted)
  if (!same) throw new Error(`${what}: ${show(got)} instead of ${show(wanted)}`)
}

function expectAfter(what, since, millis) {
  const elapsed = performance.now() - since
  // Node's timers and clock may differ by a millisecond.
  if (elapsed < millis - 1) throw new Error(`${what} after ${elapsed} ms, before ${millis} ms`)
}

function withinPatience(what, promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing in ${PATIENCE} ms`)), PATIENCE)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

// A reader whose messages wait in a queue until a check takes and answers them.
class Consumer {
  constructor(topic, options) {
    this.messages = []
    this.errors = []
    this.closed = 0
    this.arrived = () => {}
    this.reader = new Reader(topic, 'c', {nsqdTCPAddresses: [tcp], ...options})
    this.reader.on(Reader.MESSAGE, (message) => {
      this.messages.push(message)
      this.arrived()
    })
    this.reader.on(Reader.ERROR, (error) => this.errors.push(String(error)))
    this.reader.on(Reader.NSQD_CLOSED, () => this.closed++)
    this.reader.connect()
  }

  async next() {
    if (this.messages.length === 0) {
      await withinPatience('a message', new Promise((done) => (this.arrived = done)))
    }
    return this.messages.shift()
  }

  async nothing(millis) {
    await sleep(millis)
    expect('messages that must not come', this.messages.length, 0)
  }

  // Answers go out on the next tick, so a reader that is closed at once would lose them.
  async close() {
    expect('connections lost before', this.closed, 0)
    await sleep(10)
    this.reader.close()
  }
}

// One check's topic: publishing to it, consuming from it, its counters.
class Bench {
  constructor(name, writer) {
    Object.assign(this, {topic: `nsqjs_${name}`, writer})
  }

  pub(bodies) {
    return withinPatience('the answer to publish', callback((done) => this.writer.publish(this.topic, bodies, done)))
  }

  dpub(body, millis, writer = this.writer) {
    const answer = callback((done) => writer.deferPublish(this.topic, [body], millis, done))
    return withinPatience('the answer to deferPublish', answer)
  }

  consume(options = {}) {
    return new Consumer(this.topic, options)
  }

  async stats() {
    const answer = await fetch(`http://${http}/stats?format=json&topic=${this.topic}`)
    return (await answer.json()).topics ?? []
  }

  // The channel's counters come to these; those not named to zero.
  async settles(named) {
    const zero = {
      depth: 0, in_flight_count: 0, deferred_count: 0, requeue_count: 0, timeout_count: 0, client_count: 0,
    }
    const wanted = {...zero, message_count: 0, ...named}
    for (const end = performance.now() + PATIENCE; ; ) {
      const [topic] = await this.stats()
      const got = Object.fromEntries(Object.keys(wanted).map((name) => [name, topic.channels[0]?.[name]]))
      if (topic.depth === 0 && JSON.stringify(got) === JSON.stringify(wanted)) return
      if (performance.now() > end) throw new Error(`/stats shows ${show(got)} instead of ${show(wanted)}`)
      await sleep(50)
    }
  }
}

function callback(call) {
  return new Promise((done, fail) => call((error) => (error ? fail(error) : done())))
}

async function connectedWriter() {
  const writer = new Writer(host, Number(port))
  writer.on(Writer.ERROR, () => {}) // the callback of the publish tells
  const ready = new Promise((done) => writer.once(Writer.READY, done))
  writer.connect()
  await withinPatience('a connection for the writer', ready)
  return writer
}

async function one(bench, body) {
  await bench.pub(body)
  const consumer = bench.consume()
  const message = await consumer.next()
  expect('the body', message.body, body)
  expect('attempts', message.attempts, 1)
  const age = Date.now() - Number(message.timestamp) / 1e6
  expect('a fresh timestamp', -1000 < age && age < 60_000, true)
  message.finish()
  await consumer.nothing(300)
  await consumer.close()
  await bench.settles({message_count: 1})
}

const bodiesOf = (messages) => messages.map((message) => message.body.toString()).sort()

const checks = {
  small: (bench) => one(bench, Buffer.from('hello')),

  large: (bench) => one(bench, LARGE),

  async batch(bench) {
    const bodies = Array.from({length: 50}, (_, i) => `${i} `.repeat(i + 1))
    await bench.pub(bodies)
    const consumer = bench.consume({maxInFlight: 7})
    const got = []
    for (let i = 0; i < 50; i++) {
      got.push(await consumer.next())
      got.at(-1).finish()
    }
    expect('the bodies', bodiesOf(got), bodies.sort())
    await consumer.nothing(300)
    await consumer.close()
    await bench.settles({message_count: 50})
  },

  async deferred(bench) {
    const consumer = bench.consume()
    const since = performance.now()
    await bench.dpub('later', 700)
    const message = await consumer.next()
    expectAfter('the message came', since, 700)
    expect('the body', message.body.toString(), 'later')
    expect('attempts', message.attempts, 1)
    message.finish()
    await consumer.close()
    await bench.settles({message_count: 1})
  },

  async requeue(bench) {
    await bench.pub('again')
    const consumer = bench.consume()
    const first = await consumer.next()
    const since = performance.now()
    first.requeue(700, false)
    const second = await consumer.next()
    expectAfter('it came again', since, 700)
    expect('the id', second.id, first.id)
    expect('the timestamp', String(second.timestamp), String(first.timestamp))
    second.requeue(0, false)
    const third = await consumer.next()
    expect('attempts', [first, second, third].map((message) => message.attempts), [1, 2, 3])
    expect('the body', third.body.toString(), 'again')
    third.finish()
    await consumer.close()
    await bench.settles({message_count: 1, requeue_count: 2})
  },

  async timeout(bench) {
    const since = performance.now()
    await bench.pub('slow')
    const consumer = bench.consume({messageTimeout: 1000})
    const first = await consumer.next()
    const second = await consumer.next()
    expectAfter('it came again', since, 1000)
    expect('the id', second.id, first.id)
    expect('attempts', second.attempts, 2)
    second.finish()
    // Too late: an error that must not end the connection.
    first.finish()
    await bench.pub('next')
    const third = await consumer.next()
    expect('the body', third.body.toString(), 'next')
    third.finish()
    expect('errors', consumer.errors, [`Error: E_FIN_FAILED FIN ${first.id} failed ID not in flight`])
    await consumer.close()
    await bench.settles({message_count: 2, timeout_count: 1})
  },

  async touch(bench) {
    await bench.pub('long')
    const consumer = bench.consume({messageTimeout: 2000})
    const message = await consumer.next()
    for (let i = 0; i < 4; i++) {
      await sleep(800)
      message.touch()
    }
    message.finish()
    await consumer.nothing(300)
    await consumer.close()
    await bench.settles({message_count: 1})
  },

  async in_flight(bench) {
    const bodies = Array.from({length: 30}, (_, i) => String(i))
    await bench.pub(bodies)
    const consumer = bench.consume({maxInFlight: 10})
    const held = []
    while (held.length < 10) held.push(await consumer.next())
    await consumer.nothing(500)
    await bench.settles({message_count: 30, in_flight_count: 10, depth: 20, client_count: 1})
    const got = []
    while (held.length > 0) {
      expect('no more than RDY allows in flight', held.length + consumer.messages.length <= 10, true)
      got.push(held.pop())
      got.at(-1).finish()
      if (got.length + held.length < 30) held.push(await consumer.next())
    }
    expect('the bodies', bodiesOf(got), bodies.sort())
    await consumer.close()
    await bench.settles({message_count: 30})
  },

  async close(bench) {
    const since = performance.now()
    await bench.pub(Array.from({length: 5}, (_, i) => String(i)))
    const leaver = bench.consume({maxInFlight: 5, messageTimeout: 2000})
    const held = []
    while (held.length < 5) held.push(await leaver.next())
    held.slice(0, 2).forEach((message) => message.finish())
    await leaver.close()
    await bench.settles({message_count: 5, in_flight_count: 3})
    const heir = bench.consume({maxInFlight: 5})
    const inherited = []
    while (inherited.length < 3) inherited.push(await heir.next())
    expectAfter('what was in flight came', since, 2000)
    expect('its bodies', bodiesOf(inherited), bodiesOf(held.slice(2)))
    expect('attempts', inherited.map((message) => message.attempts), [2, 2, 2])
    inherited.forEach((message) => message.finish())
    await heir.nothing(300)
    await heir.close()
    await bench.settles({message_count: 5, timeout_count: 3})
  },

  async heartbeat(bench) {
    const consumer = bench.consume({heartbeatInterval: 1})
    await sleep(3500)
    await bench.pub('alive')
    const message = await consumer.next()
    message.finish()
    expect('errors', consumer.errors, [])
    await consumer.close()
    await bench.settles({message_count: 1})
  },

  async refused(bench) {
    const writer = await connectedWriter()
    const answer = await bench.dpub('in over an hour', 3_600_001, writer).catch(String)
    expect('an error', /E_INVALID/.test(answer), true)
    expect('its topics', await bench.stats(), [])
  },
}

async function run(name, writer) {
  try {
    await checks[name](new Bench(name, writer))
  } catch (error) {
    console.log(`FAIL nsqjs ${name}: ${error.message}`)
    return false
  }
  console.log(`ok   nsqjs ${name}`)
  return true
}

async function main() {
  const writer = await connectedWriter()
  const passed = await Promise.all(Object.keys(checks).map((name) => run(name, writer)))
  const closed = new Promise((done) => writer.once(Writer.CLOSED, done))
  writer.close()
  await withinPatience('the end of the writer', closed)
  process.exit(passed.every(Boolean) ? 0 : 1)
}

main().catch((error) => {
  console.log(`FAIL nsqjs: ${error.message}`)
  process.exit(1)
})
