import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import type { AuditEvent } from '../../sandbox/control-plane.ts'
import { startProcess } from '../../sandbox/processes.ts'
import type { AttackOrder, AttackReport } from './attacker.ts'
import { FIRST, type HonestLoad, type Outcome } from './honest.ts'
import { startTarget, type Target } from './target.ts'

/** The attacks of one run, in their order. */
export type Run = Omit<AttackOrder, 'port'>[]

/** The time of a measurement (`performance.now`). */
interface Span {
  from: number
  to: number
}

/** What one attack did, and its effect on the process. */
interface Attacked extends Span {
  order: Run[number]
  report: AttackReport
  /** The most that was seen. */
  rssMiB: number
  /** Delay of this test process itself (p99): on a busy machine, everything is late. */
  ownDelayMs: number
  /** How the process ended, if it ended. */
  ended: string | undefined
  /** It is run again, and that one's p99 counts. */
  isRepeated: boolean
}

interface Row {
  cells: string[]
  breaches: string[]
}

const MOST_TIMES_SLOWER = 5
const MOST_READS_PER_SECOND = 20
const MOST_RSS_GROWTH_MIB = 20
/**
 * A quiet machine answers in 3 ms. Where the API server, the attacker and this process share two cores
 * with it, some time slices of the kernel (4 ms each) come on top of any answer, with or without attack.
 */
const LEAST_BASELINE_MS = 10
const BASELINE_MS = 15_000
/** With fewer answers, p99 is the slowest one. It is printed, but not checked. */
const FEWEST_FOR_P99 = 90
/** By then, the rest of the attack in the buffers of the kernel has been read. */
const COOL_DOWN_MS = 300

/**
 * Runs the attacks on one pullpass as it is shipped, with honest reviews all the time. Prints the table
 * and asserts each bound. A pullpass that has ended is started again, so that the table is always whole.
 *
 * p99 of a hundred reviews is the second slowest of them, so that one stall of the machine is enough. An
 * attack with a p99 over the bound is therefore run once more: a weakness shows again. Both are printed.
 */
export async function runTable(t: Test, runs: Run[]): Promise<void> {
  const target = await startTarget()
  t.teardown(target.stop)
  const { load } = target
  const baseline = await measureBaseline(load)
  const settled: number[] = []
  for (const [index, run] of runs.entries()) {
    const attacked: Attacked[] = []
    for (const order of run) {
      const first = await runAttack(target, order)
      const isRepeated = isLate(first, load, baseline)
      attacked.push({ ...first, isRepeated })
      if (isRepeated) attacked.push(await runAttack(target, order))
    }
    settled.push(await settle(target))
    // The last reviews of the run may still wait for their answer.
    await sleep(5000)
    const reads = await readsOf(target)
    const rows = attacked.map(each => judge(each, { load, reads, baseline }))
    for (const { cells, breaches } of rows) {
      t.strictSame(breaches, [], `run ${index + 1}: ${cells[0]} from ${cells[1]}`)
    }
    print([HEADINGS, ...rows.map(({ cells }) => cells)])
  }
  say(`without attack: p99 ${baseline.p99.toFixed(1)} ms; RSS after each run: ${settled} MiB`)
  const growth = (settled.at(-1) ?? 0) - (settled[0] ?? 0)
  t.ok(growth <= MOST_RSS_GROWTH_MIB, `the last run made RSS grow by ${growth} MiB`)
  t.strictSame(load.unsent, [], 'each honest review could be sent')
}

type Baseline = Span & { p99: number }

async function measureBaseline(load: HonestLoad): Promise<Baseline> {
  // Before the measurement, connections are opened and code is compiled.
  await sleep(3000)
  const from = performance.now()
  await sleep(BASELINE_MS)
  const span = { from, to: performance.now() }
  await sleep(1000)
  const baseline = { ...span, p99: p99(knownOf(load, span)) }
  say(`without attack: p99 ${baseline.p99.toFixed(1)} ms`)
  return baseline
}

async function runAttack(target: Target, order: Run[number]): Promise<Attacked> {
  const { pullpass, limit } = target
  const began = { from: performance.now(), oomKills: await limit.oomKills() }
  const delay = monitorEventLoopDelay({ resolution: 5 })
  delay.enable()
  let rssMiB = 0
  const sampling = setInterval(async () => {
    rssMiB = Math.max(rssMiB, await target.rssMiB())
  }, 200)
  const report = await attack({ ...order, port: target.port })
  await sleep(COOL_DOWN_MS)
  clearInterval(sampling)
  delay.disable()
  let ended: string | undefined
  if (!pullpass.process().running()) {
    const { code, signal } = await pullpass.process().ended
    const killed = (await limit.oomKills()) > began.oomKills ? ', out of memory' : ''
    ended = `ended (${signal ?? code}${killed})`
    await pullpass.restart()
  }
  const ownDelayMs = delay.percentile(99) / 1e6
  const to = performance.now()
  const seen = { order, report, rssMiB, ownDelayMs, ended, isRepeated: false }
  const attacked = { ...began, to, ...seen }
  const about = `${order.attack} from ${order.connections}`
  say(`${about}: ${megabytes(report)} MB, RSS ${rssMiB} MiB, ${ended ?? 'running'}`)
  return attacked
}

const attacker = new URL('attacker.ts', import.meta.url).pathname

async function attack(order: AttackOrder): Promise<AttackReport> {
  const started = await startProcess({
    name: `attack ${order.attack}`,
    command: process.execPath,
    args: [attacker, JSON.stringify(order)],
  })
  const late = setTimeout(() => started.signal('SIGKILL'), order.seconds * 1000 + 10_000)
  await started.ended
  clearTimeout(late)
  const [last = ''] = started.output().trim().split('\n').slice(-1)
  if (!last.startsWith('{')) throw new Error(`the attack failed:\n${started.output()}`)
  return JSON.parse(last)
}

/** Waits until the attack's connections are gone and two readings are the same, for 20 s at most. */
async function settle(target: Target): Promise<number> {
  let before = 0
  for (let reading = 0; reading < 10; reading++) {
    await sleep(2000)
    const rssMiB = await target.rssMiB()
    if (Math.abs(rssMiB - before) <= 1 && (await target.openFiles()) < 100) return rssMiB
    before = rssMiB
  }
  return before
}

/** Times at which pullpass read something that no honest review needs (`performance.now`). */
async function readsOf({ controlPlane }: Target): Promise<number[]> {
  const isRead = ({ verb, stage, user, objectRef }: AuditEvent) =>
    (verb === 'get' || verb === 'list') &&
    stage === 'ResponseComplete' &&
    user.username === 'system:serviceaccount:pullpass:pullpass' &&
    !objectRef?.namespace?.startsWith(FIRST) &&
    !objectRef?.name?.startsWith(FIRST)
  const events = await controlPlane.audit()
  return events
    .filter(isRead)
    .map(event => Date.parse(event.requestReceivedTimestamp) - performance.timeOrigin)
}

function judge(
  attacked: Attacked,
  { load, reads, baseline }: { load: HonestLoad; reads: number[]; baseline: Baseline },
): Row {
  const { order, report, rssMiB, ownDelayMs, ended, isRepeated } = attacked
  const asked = load.outcomes.filter(outcome => inside(attacked, timeOf(outcome)))
  const lost = asked.flatMap(outcome => outcome.lost ?? [])
  const slowest = p99(knownOf(load, attacked))
  const ratio = timesSlower(slowest, baseline)
  const more = rate(reads, attacked) - rate(reads, baseline)
  const late = !isRepeated && isLate(attacked, load, baseline)
  const breaches = [
    ...(ended === undefined ? [] : [ended]),
    ...(lost.length > 0
      ? [`${lost.length} lost: ${[...new Set(lost)].slice(0, 3).join('; ')}`]
      : []),
    ...(late ? [`p99 ${ratio.toFixed(1)} times as long`] : []),
    ...(more > MOST_READS_PER_SECOND ? [`${more.toFixed(0)} API reads a second`] : []),
  ]
  const statuses = Object.entries(report.statuses).map(([status, count]) => `${status}:${count}`)
  const cells = [
    ...[order.attack, `${order.connections}`, `${order.seconds}`, megabytes(report)],
    ...[`${report.connections}`, statuses.join(' '), `${asked.length - lost.length}`],
    ...[`${lost.length}`, slowest.toFixed(0), ratio.toFixed(1), ownDelayMs.toFixed(0)],
    ...[more.toFixed(1), `${rssMiB}`, breaches.join('; ') || (isRepeated ? 'repeated' : 'ok')],
  ]
  return { cells, breaches }
}

function isLate(attacked: Span, load: HonestLoad, baseline: Baseline): boolean {
  const known = knownOf(load, attacked)
  return known.length >= FEWEST_FOR_P99 && timesSlower(p99(known), baseline) > MOST_TIMES_SLOWER
}

function timesSlower(ms: number, baseline: Baseline): number {
  return ms / Math.max(baseline.p99, LEAST_BASELINE_MS)
}

const HEADINGS = [
  ...['attack', 'from', 's', 'MB', 'opened', 'answers', 'honest', 'lost', 'p99 ms', 'times'],
  ...['own ms', 'reads/s', 'RSS MiB', 'verdict'],
]

/** A review belongs to the attack during which it was sent; an interrupted one, to the attack that interrupted it. */
function timeOf({ sentAt, endedAt, lost }: Outcome): number {
  return lost === undefined || lost === 'no answer in time' ? sentAt : endedAt
}

/** Durations of the answered reviews of known namespaces, in milliseconds. */
function knownOf({ outcomes }: HonestLoad, span: Span): number[] {
  return outcomes
    .filter(
      ({ pod, sentAt, lost }) => pod === 'known' && lost === undefined && inside(span, sentAt),
    )
    .map(({ sentAt, endedAt }) => endedAt - sentAt)
}

function inside({ from, to }: Span, time: number): boolean {
  return time >= from && time < to
}

function p99(times: number[]): number {
  return times.toSorted((a, b) => a - b)[Math.ceil(times.length * 0.99) - 1] ?? 0
}

function rate(times: number[], span: Span): number {
  const within = times.filter(time => inside(span, time))
  return (within.length * 1000) / (span.to - span.from)
}

function megabytes({ sentBytes }: AttackReport): string {
  return (sentBytes / 1e6).toFixed(1)
}

function print(table: string[][]): void {
  const widths = HEADINGS.map((_, column) =>
    Math.max(...table.map(row => row[column]?.length ?? 0)),
  )
  for (const row of table) {
    say(row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '))
  }
}

function say(line: string): void {
  process.stderr.write(`${line.trimEnd()}\n`)
}
