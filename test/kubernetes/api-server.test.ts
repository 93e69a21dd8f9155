// These tests share one control plane. Each file can also run alone: `npx tap test/kubernetes/client.ts`.
import './client.ts'
import './leader-election.ts'
import './list-watch.ts'
