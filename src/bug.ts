/** Where a bug is, without its message: that could quote anything. */
export function framesOf(error: unknown): string[] {
  const lines = error instanceof Error ? (error.stack ?? '').split('\n') : []
  return [
    error instanceof Error ? error.name : typeof error,
    ...lines.filter(line => line.startsWith('    at ')).map(line => line.trim()),
  ]
}
