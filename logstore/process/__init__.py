"""Process: what any process of ours needs: a heartbeat, descriptors, an end when its parent ends."""
