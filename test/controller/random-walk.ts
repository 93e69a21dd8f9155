import { registerHooks } from 'node:module'
import { parseArgs } from 'node:util'
import { plantedFaults } from './planted-faults.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    events: { type: 'string', default: '10000' },
    seconds: { type: 'string', default: 'Infinity' },
    level: { type: 'string', default: 'silent' },
    fault: { type: 'string', default: '' },
  },
  args: import.meta.main ? process.argv.slice(2) : [],
})
const fault = plantedFaults[values.fault]

/* The walk itself is in model/walk.ts. The caches of each process in it are small: see there. */
registerHooks({
  resolve: (specifier, context, next) =>
    specifier === 'lru-cache' && !context.parentURL?.endsWith('/small-caches.ts')
      ? next('./model/small-caches.ts', { ...context, parentURL: import.meta.url })
      : next(specifier, context),
  load: (url, context, next) => {
    const loaded = next(url, context)
    if (fault === undefined || !url.endsWith(fault.file)) return loaded
    const parts = String(loaded.source).split(fault.text)
    if (parts.length !== 2) throw new Error(`${fault.file} has no ${fault.text}`)
    return { ...loaded, source: parts.join(fault.instead) }
  },
})

export const { randomWalk } = await import('./model/walk.ts')

const cpuSeconds = () => Math.round(process.cpuUsage().user / 1e6)

if (import.meta.main) {
  const begun = performance.now()
  try {
    const done = await randomWalk({
      seed: Number(values.seed),
      events: Number(values.events),
      until: () => cpuSeconds() >= Number(values.seconds),
      level: values.level,
      progress: done =>
        process.stderr.write(
          `${done} events, ${Math.round((performance.now() - begun) / 1000)} s\r`,
        ),
    })
    console.log(`${done} events without a violation, ${cpuSeconds()} s of CPU`)
  } catch (error) {
    console.log(`after ${cpuSeconds()} s of CPU, ${(error as Error).message}`)
    process.exitCode = 1
  }
}
