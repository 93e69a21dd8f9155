import { Counter, Histogram, type Registry } from 'prom-client'

/** Called as a request begins; what it returns is told how the request ended. */
export function createRequestMetrics(registry: Registry) {
  const requests = new Counter({
    name: 'pullpass_bluemix_requests_total',
    help: 'Requests to the Bluemix environment, by operation and HTTP status or failure.',
    labelNames: ['operation', 'code'],
    registers: [registry],
  })
  const seconds = new Histogram({
    name: 'pullpass_bluemix_request_seconds',
    help: 'How long the Bluemix environment took to answer.',
    labelNames: ['operation'],
    registers: [registry],
  })
  return (operation: string) => {
    const stop = seconds.startTimer({ operation })
    return (code: string) => {
      stop()
      requests.inc({ operation, code })
    }
  }
}
