/*
 * Loaded before the program (node --import): gives it a wall clock that is off by as many
 * milliseconds as the file CLOCK_OFFSET_FILE says, also while it runs. Timers and performance.now()
 * stay as they are, as where somebody sets the clock of a machine.
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
