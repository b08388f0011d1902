"""The reconcile runtime. It knows no resource."""
