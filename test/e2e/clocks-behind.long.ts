import { simulateSkews } from './clocks.ts'

const hourMs = 3_600_000

await simulateSkews([
  { name: 'an hour behind', offsetMs: -hourMs, restarted: true },
  { name: 'a day behind', offsetMs: -24 * hourMs, restarted: false },
  { name: '400 days behind', offsetMs: -400 * 24 * hourMs, restarted: true },
])
