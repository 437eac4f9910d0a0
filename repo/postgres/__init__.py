"""The store on PostgreSQL, for fleets that outgrow a machine."""
