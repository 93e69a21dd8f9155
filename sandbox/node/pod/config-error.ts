/**
 * A pod asks for what is not there (yet). `reason` is what the kubelet would write as the
 * container's waiting reason.
 */
export class ConfigError extends Error {
  readonly reason: string

  constructor(message: string, reason = 'CreateContainerConfigError') {
    super(message)
    this.name = 'ConfigError'
    this.reason = reason
  }
}
