"""The driver of virtual machines on this computer: QEMU, under KVM where there is one, else by emulation.

`options` (what is asked for) → `vm` and `folders` (what is kept) → `base`, `disk` and `seed` (what it stands on) →
`arguments` (QEMU's command line, pure) → `process` and `qmp` (what runs, as the kernel knows it). `driver` joins them.
"""
