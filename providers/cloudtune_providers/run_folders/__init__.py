"""Jobs whose run folders lie on storage that a cluster shares, or on another machine: what several back ends use."""
