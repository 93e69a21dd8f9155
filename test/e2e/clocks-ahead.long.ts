import { simulateSkews } from './clocks.ts'

const hourMs = 3_600_000

await simulateSkews([
  { name: 'an hour ahead', offsetMs: hourMs, restarted: false },
  { name: 'a day ahead', offsetMs: 24 * hourMs, restarted: true },
  { name: '400 days ahead', offsetMs: 400 * 24 * hourMs, restarted: true },
])
