/** Prints `what` on stderr, at once and every ten seconds; `stop` returns the seconds that passed. */
export function startProgress(what: string): { stop(): number } {
  const begin = performance.now()
  const seconds = () => Math.round((performance.now() - begin) / 1000)
  console.error(`${what} ...`)
  const timer = setInterval(() => console.error(`${what} ... ${seconds()} s`), 10_000)
  return {
    stop() {
      clearInterval(timer)
      return seconds()
    },
  }
}
