/** Something people can mend; the message says how, and is all that is shown. */
export class ToolError extends Error {
  override readonly name = 'ToolError'
  constructor(message: string) {
    super(message)
    this.stack = message
  }
}
