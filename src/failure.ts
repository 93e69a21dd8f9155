/** Where a bug is, without its message: that could quote anything. */
export function framesOf(error: unknown): string[] {
  const lines = error instanceof Error ? (error.stack ?? '').split('\n') : []
  return [
    error instanceof Error ? error.name : typeof error,
    ...lines.filter(line => line.startsWith('    at ')).map(line => line.trim()),
  ]
}

/** The longest text that comes from a tenant or from another system and is quoted whole. */
const longest = 100

/** A text as it may stand in a log line, an event, a warning or an error message. */
export function clip(text: string): string {
  return text.length <= longest ? text : `${text.slice(0, longest - 1)}…`
}
