import { Counter, Gauge, type Registry } from 'prom-client'

export interface WatchMeters {
  contacted(): void
  relisted(): void
  skipped(): void
  failed(kind: string): void
}

/** What is counted of the watch `name`; all watches of a registry share the same metrics. */
export function createWatchMeters(metrics: Registry, name: string): WatchMeters {
  const { contact, relists, skipped, errors } = shared(metrics)
  relists.inc({ watch: name }, 0)
  skipped.inc({ watch: name }, 0)
  return {
    contacted: () => contact.setToCurrentTime({ watch: name }),
    relisted: () => relists.inc({ watch: name }),
    skipped: () => skipped.inc({ watch: name }),
    failed: kind => errors.inc({ watch: name, kind }),
  }
}

const registered = new WeakMap<Registry, ReturnType<typeof register>>()

function shared(metrics: Registry): ReturnType<typeof register> {
  const known = registered.get(metrics) ?? register(metrics)
  registered.set(metrics, known)
  return known
}

function register(metrics: Registry) {
  const registers = [metrics]
  return {
    contact: new Gauge({
      name: 'pullpass_watch_last_contact_timestamp_seconds',
      help: 'When the API server was last heard on this watch; time() minus this is its age',
      labelNames: ['watch'],
      registers,
    }),
    relists: new Counter({
      name: 'pullpass_watch_relists_total',
      help: 'Lists after the first one',
      labelNames: ['watch'],
      registers,
    }),
    skipped: new Counter({
      name: 'pullpass_watch_objects_skipped_total',
      help: 'Objects that are too large to be read and count as absent, each time that they arrive',
      labelNames: ['watch'],
      registers,
    }),
    errors: new Counter({
      name: 'pullpass_watch_errors_total',
      help: 'Watches that did not end in order, by kind, and changes that were not handled',
      labelNames: ['watch', 'kind'],
      registers,
    }),
  }
}
