import { registerHooks } from 'node:module'

/* The walk itself is in model/walk.ts. The caches of each process in it are small: see there. */
registerHooks({
  resolve: (specifier, context, next) =>
    specifier === 'lru-cache' && !context.parentURL?.endsWith('/small-caches.ts')
      ? next('./model/small-caches.ts', { ...context, parentURL: import.meta.url })
      : next(specifier, context),
})

export const { randomWalk } = await import('./model/walk.ts')

if (import.meta.main) {
  const { parseArgs } = await import('node:util')
  const { values } = parseArgs({
    options: {
      seed: { type: 'string', default: '1' },
      events: { type: 'string', default: '10000' },
      level: { type: 'string', default: 'silent' },
    },
  })
  const begun = performance.now()
  try {
    const done = await randomWalk({
      seed: Number(values.seed),
      events: Number(values.events),
      level: values.level,
      progress: done =>
        process.stderr.write(
          `${done} events, ${Math.round((performance.now() - begun) / 1000)} s\r`,
        ),
    })
    console.log(`${done} events without a violation`)
  } catch (error) {
    console.log((error as Error).message)
    process.exitCode = 1
  }
}
