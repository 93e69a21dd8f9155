/*
 * Loaded before the program (node --import). Shifts the wall clock of the program by the number of
 * milliseconds in the file CLOCK_OFFSET_FILE, also while it runs. Timers and performance.now() do
 * not change, as when the clock of a machine is set.
 */
import { readFileSync } from 'node:fs'

const file = process.env.CLOCK_OFFSET_FILE ?? ''
const realDate = Date
const realNow = Date.now.bind(Date)
let offsetMs = 0

const read = () => {
  offsetMs = Number(readFileSync(file, 'utf8'))
}
read()
setInterval(read, 100).unref()
realDate.now = () => realNow() + offsetMs
globalThis.Date = new Proxy(realDate, {
  construct: (target, args, newTarget) =>
    Reflect.construct(target, args.length > 0 ? args : [target.now()], newTarget),
  apply: target => new target(target.now()).toString(),
})
