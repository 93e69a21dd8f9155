import type { Traffic } from './traffic.ts'

/** One run with one number of namespaces. */
export interface Measured {
  namespaces: number
  foreign: number
  filled: Traffic
  fillSeconds: number
  /** CPU time of the leader until all is filled. */
  cpuSeconds: number
  rest: Traffic
  /** Peak RSS. */
  leaderBytes: number
  successorBytes: number
  failoverSeconds: number
  /** From the kill until some time after the next list. */
  afterwards: Traffic
  /** Namespaces with a live token of their own, one more than at first. */
  served: number
  /** At the end, marks included. */
  liveTokens: number
}

interface Row {
  name: string
  bound: string
  value(run: Measured): number
  /** Absent: the row is for information. */
  holds?(value: number, run: Measured, all: readonly Measured[]): boolean
  digits?: number
}

const leaseSeconds = 15
const listSeconds = 60
const verifySeconds = 21_600

/** The first list of a term, the second after the duration of the Lease, then one a minute. */
const listsFromStart = (seconds: number) => 2 + Math.max(0, (seconds - leaseSeconds) / listSeconds)
/** They are due at random moments: four standard deviations above their mean. */
const mostChecks = ({ seconds }: Traffic, namespaces: number) => {
  const due = (namespaces * seconds) / verifySeconds
  return due + 4 * Math.sqrt(due) + 3
}
const bytesEach = (run: Measured) => run.filled.bytes / run.namespaces
const isWithinFifth = (values: number[]) => Math.max(...values) <= 1.2 * Math.min(...values)

const rows: Row[] = [
  {
    name: 'filling: requests per namespace',
    bound: 'at most 1.2',
    value: run => run.filled.requests / run.namespaces,
    holds: value => value <= 1.2,
    digits: 3,
  },
  {
    name: 'filling: bytes per namespace, without lists',
    bound: 'within 20 % of each other',
    value: bytesEach,
    holds: (_, __, all) => isWithinFifth(all.map(bytesEach)),
  },
  {
    name: 'filling: lists of an organization',
    bound: '2, then one a minute',
    value: run => run.filled.lists,
    holds: (value, run) => value <= listsFromStart(run.fillSeconds),
  },
  {
    name: 'filling: seconds',
    bound: 'at most 900',
    value: run => run.fillSeconds,
    holds: value => value <= 900,
  },
  { name: 'filling: CPU seconds of the leader', bound: '', value: run => run.cpuSeconds },
  {
    name: 'leader: peak RSS, MB',
    bound: 'under 200',
    value: run => run.leaderBytes / 1e6,
    holds: value => value < 200,
  },
  {
    name: 'follower, then leader: peak RSS, MB',
    bound: 'under 200',
    value: run => run.successorBytes / 1e6,
    holds: value => value < 200,
  },
  {
    name: 'at rest: lists of an organization',
    bound: 'one a minute',
    value: run => run.rest.lists,
    holds: (value, run) => value <= 1 + run.rest.seconds / listSeconds,
  },
  {
    name: 'at rest: credential checks',
    bound: 'those that are due',
    value: run => run.rest.checks,
    holds: (value, run) => value <= mostChecks(run.rest, run.namespaces),
  },
  {
    name: 'at rest: other requests',
    bound: 'none',
    value: run => run.rest.others,
    holds: value => value === 0,
  },
  {
    name: 'leader killed: seconds until steady',
    bound: `at most ${leaseSeconds + 15}`,
    value: run => run.failoverSeconds,
    holds: value => value <= leaseSeconds + 15,
    digits: 1,
  },
  {
    name: 'leader killed: lists of an organization',
    bound: '2, then one a minute',
    value: run => run.afterwards.lists,
    holds: (value, run) => value <= listsFromStart(run.afterwards.seconds),
  },
  {
    name: 'leader killed: credential checks',
    bound: 'those that are due',
    value: run => run.afterwards.checks,
    holds: (value, run) => value <= mostChecks(run.afterwards, run.namespaces),
  },
  { name: 'leader killed: other requests', bound: '', value: run => run.afterwards.others },
  {
    name: 'end: namespaces with a live token of their own',
    bound: 'all, and one more',
    value: run => run.served,
    holds: (value, run) => value === run.namespaces + 1,
  },
  {
    name: 'end: other live tokens of ours (marks)',
    bound: 'at most 4',
    value: run => run.liveTokens - run.served,
    holds: value => value <= 4,
  },
]

/** As Markdown: a row for each bound, a column for each number of namespaces. */
export function table(measured: readonly Measured[]): string {
  const cells = [
    ['', 'bound', ...measured.map(titleOf)],
    ['---', '---', ...measured.map(() => '---:')],
    ...rows.map(row => [row.name, row.bound, ...measured.map(run => cellOf(row, run, measured))]),
  ]
  return cells.map(line => `| ${line.join(' | ')} |`).join('\n')
}

/** A line for each value that breaks its bound. */
export function brokenBounds(measured: readonly Measured[]): string[] {
  return measured.flatMap(run =>
    rows
      .filter(row => !holds(row, run, measured))
      .map(row => `${titleOf(run)}: ${row.name}: ${numberOf(row, run)}, bound: ${row.bound}`),
  )
}

function titleOf({ namespaces, foreign }: Measured): string {
  return foreign === 0 ? `${namespaces}` : `${namespaces} + ${foreign} rows of others`
}

function cellOf(row: Row, run: Measured, all: readonly Measured[]): string {
  return holds(row, run, all) ? numberOf(row, run) : `**${numberOf(row, run)}** (broken)`
}

function numberOf({ value, digits = 0 }: Row, run: Measured): string {
  return value(run).toFixed(digits)
}

function holds({ holds, value }: Row, run: Measured, all: readonly Measured[]): boolean {
  return holds === undefined || holds(value(run), run, all)
}
