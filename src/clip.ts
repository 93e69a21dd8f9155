/** The longest text that comes from a tenant or from another system and is quoted whole. */
const longest = 100

/** A text as it may stand in a log line, an event, a warning or an error message. */
export function clip(text: string): string {
  return text.length <= longest ? text : `${text.slice(0, longest - 1)}…`
}
