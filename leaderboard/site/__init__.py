"""`bpbench site`: what is published as static pages. No server, no build step, nothing from another host."""
