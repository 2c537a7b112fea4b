"""SSH as people have it, on paramiko: ssh_config and jumps (`config`), known hosts (`hostkey`), keys and passwords
(`credential`), one connection per host for a whole run (`connection`) with one shell for its commands (`shell`).

All of it blocks; `fleet` gives each host a thread. paramiko is imported when somebody dials, and not before.
"""
