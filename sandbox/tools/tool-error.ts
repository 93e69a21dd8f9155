/** A problem that the user can fix. Only the message is shown; it says how. */
export class ToolError extends Error {
  override readonly name = 'ToolError'
  constructor(message: string) {
    super(message)
    this.stack = message
  }
}
