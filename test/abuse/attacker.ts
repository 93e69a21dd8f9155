import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { constants, setPriority } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import { attacks } from './attacks.ts'

/**
 * One attack, as a process of its own: `node attacker.ts '{"attack", "port", "connections", "seconds"}'`.
 * It ends by itself after `seconds`, and prints one line of JSON, an `AttackReport`.
 */
export interface AttackOrder {
  attack: string
  port: number
  /** How many connections it keeps open; those that are closed are opened again. */
  connections: number
  seconds: number
}

export interface AttackReport {
  sentBytes: number
  /** Total number of opened connections. */
  connections: number
  /** Number of answers with each HTTP status. */
  statuses: Record<string, number>
}

/** A connection to the webhook. All its methods resolve at once when it is closed. */
export interface Connection {
  readonly open: boolean
  readonly socket: Socket
  /** Sends at the pace of the attacker and waits until the kernel has accepted it; false: closed. */
  send(data: Buffer | string): Promise<boolean>
  /** Waits for one more answer; false: closed before it arrived. */
  answer(): Promise<boolean>
  /** Waits until it is closed. */
  closed(): Promise<void>
}

/** How an attack reaches the webhook. */
export interface Attacker {
  readonly over: boolean
  tls(options?: ConnectionOptions & { allowHalfOpen?: boolean }): Promise<Connection>
  tcp(): Promise<Connection>
  pause(ms: number): Promise<void>
}

/** The attacker's own address: what comes from it differs from what the API server sends. */
const LOCAL_ADDRESS = '127.0.0.2'
const BYTES_PER_SECOND = 20_000_000
const CONNECTIONS_PER_SECOND = 200
const SLICE = 32 << 10

type Pace = (amount: number) => Promise<void>

/** Limits the bytes per second, in order of arrival. */
function createPace(perSecond: number): Pace {
  let free = performance.now()
  return async amount => {
    const now = performance.now()
    free = Math.max(free, now) + (amount * 1000) / perSecond
    if (free - now > 1) await sleep(free - now)
  }
}

function createAttacker(order: AttackOrder): { attacker: Attacker; report: AttackReport } {
  const report: AttackReport = { sentBytes: 0, connections: 0, statuses: {} }
  const byBytes = createPace(BYTES_PER_SECOND)
  const byConnections = createPace(CONNECTIONS_PER_SECOND)
  const end = performance.now() + order.seconds * 1000
  const where = { port: order.port, host: '127.0.0.1', localAddress: LOCAL_ADDRESS }
  const open = async (start: () => Socket, event: string): Promise<Connection> => {
    await byConnections(1)
    const socket = start()
    report.connections++
    const connection = follow(socket, report, byBytes)
    await Promise.race([once(socket, event).catch(() => {}), connection.closed()])
    return connection
  }
  const attacker: Attacker = {
    get over() {
      return performance.now() >= end
    },
    tls: options => {
      const start = () => connectTls({ ...where, rejectUnauthorized: false, ...options })
      return open(start, 'secureConnect')
    },
    tcp: () => open(() => connectTcp(where), 'connect'),
    pause: async ms => void (await sleep(ms)),
  }
  return { attacker, report }
}

function follow(socket: Socket, report: AttackReport, byBytes: Pace): Connection {
  let answers = 0
  let asked = 0
  let wake = () => {}
  const closed = new Promise<void>(resolve => socket.once('close', () => resolve()))
  const open = () => !socket.destroyed
  socket.on('error', () => {})
  socket.on('data', data => {
    for (const [, status = ''] of data.toString('latin1').matchAll(/HTTP\/1\.1 (\d{3})/g)) {
      report.statuses[status] = (report.statuses[status] ?? 0) + 1
      answers++
    }
    wake()
  })
  socket.once('close', () => wake())
  return {
    socket,
    get open() {
      return open()
    },
    closed: () => closed,
    send: async data => {
      const bytes = typeof data === 'string' ? Buffer.from(data) : data
      for (let at = 0; at < bytes.length && open(); at += SLICE) {
        const slice = bytes.subarray(at, at + SLICE)
        await byBytes(slice.length)
        if (!open()) break
        report.sentBytes += slice.length
        await new Promise<void>(resolve => socket.write(slice, () => resolve()))
      }
      return open()
    },
    answer: async () => {
      asked++
      while (open() && answers < asked) {
        await new Promise<void>(resolve => {
          wake = resolve
        })
      }
      return answers >= asked
    },
  }
}

if (import.meta.main) {
  const order = JSON.parse(process.argv[2] ?? '') as AttackOrder
  const attack = attacks[order.attack]
  if (attack === undefined) throw new Error(`there is no attack ${order.attack}`)
  // In reality it has a machine of its own: here it takes the CPU time that nobody else needs.
  setPriority(constants.priority.PRIORITY_LOW)
  const { attacker, report } = createAttacker(order)
  const lane = async (index: number) => {
    while (!attacker.over) await attack(attacker, index)
  }
  for (let index = 0; index < order.connections; index++) void lane(index)
  await sleep(order.seconds * 1000)
  process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0))
}
