import { Counter, Gauge, type Registry } from 'prom-client'

export interface WatchMeters {
  contacted(): void
  relisted(): void
  skipped(): void
  failed(kind: string): void
}

/** The metrics of the watch `name`. All watches of a registry share them. */
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
      help: 'Time of the last sign of life of the API server on this watch, in seconds since 1970',
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
      help: 'Objects that are too large to read and count as absent, counted each time they arrive',
      labelNames: ['watch'],
      registers,
    }),
    errors: new Counter({
      name: 'pullpass_watch_errors_total',
      help: 'Watches that ended with a failure, by kind, and changes that could not be handled',
      labelNames: ['watch', 'kind'],
      registers,
    }),
  }
}
